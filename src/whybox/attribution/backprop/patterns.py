"""Patterns: the direction of a linear map's input in which the signal lies that its weights filter out, from data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from whybox.attribution.backprop.maps import Back, Maps
from whybox.attribution.backprop.sharing import LinearMap
from whybox.attribution.learned.training import batches
from whybox.core.errors import InputError, ModelError
from whybox.core.model import Model
from whybox.core.start import check_inputs
from whybox.core.target import Logit
from whybox.core.task import Task, leaf, noise_keys

# At least so many samples go through the model at once while patterns are fitted, and more of few values each, unless
# the model has a chunk of its own.
AT_ONCE, VALUES = 32, 2**17
# A variance is one of rounding below this share of the second moment, or of the sizes that cancel out in it.
SQUARES, CANCELLED = 1e-10, 1e-6
# How far wᵀa may be from 1, as a share of Σ|w a|, and a bias from the fitted one, for the weights to be the same.
SAME = 1e-3
_PATTERN, _KNOWN, _BIAS = ".pattern", ".known", ".bias"


def learned(model: Model, data: Any, *, linear: bool, progress: bool) -> dict[str, Tensor]:
    """The patterns of all linear maps that the model's output depends on, by the names of the maps.

    Args:
        model: guarded, in eval mode.
        data: inputs as one tensor, or a loader of batches; it is read once.
        linear: take the linear estimator at maps with a ReLU behind them too.
        progress: show a bar.

    Returns:
        for each map "NAME.pattern", in the shape of its weight; "NAME.known", for which outputs there is one; and
        "NAME.bias", where it has one.
    """
    survey: _Survey | None = None
    found: dict[str, _Moments] = {}
    own = model.reference_tensor()
    total = len(data) if isinstance(data, Tensor) else None
    bar = tqdm(total=total, delay=2, leave=False, disable=not progress, unit="sample")
    with torch.inference_mode(False), torch.enable_grad(), bar:
        for batch, _ in batches(data):
            given = batch if own is None else batch.to(own.device)
            check_inputs(given, model, differentiable=True)
            for inputs in given.split(model.chunk or max(AT_ONCE, VALUES // given[0].numel())):
                if survey is None:
                    survey = _surveyed(model, inputs[:1])
                gated = set() if linear else survey.rectified
                _forward(model, inputs, _Learning(model.module, found, survey.reached, gated))
                bar.update(len(inputs))
    if not found:
        raise InputError("the loader is empty: it gives no inputs to learn from")
    state: dict[str, Tensor] = {}
    for name, moments in found.items():
        state |= {f"{name}.{what}": value for what, value in moments.result(name).items()}
    return state


class Patterns:
    """Patterns that were learned, checked against the model that is explained.

    Args:
        state: what `learned` has given.
        attribution: whether relevance goes back by w ⊙ a, or the signal by a.
    """

    def __init__(self, state: Mapping[str, Tensor], *, attribution: bool) -> None:
        self.state = state
        self.attribution = attribution
        self._known: dict[str, Tensor] = {}

    def back(self, name: str, linear: LinearMap, outputs: int) -> Tensor:
        """What takes the place of this map's weight on the way back.

        Raises:
            ModelError: there is no pattern for it, or one that was fitted to other weights.
        """
        if name not in self._known:
            weight = linear.weight.detach()
            pattern = self._fitting(name, linear, weight, outputs)
            self._known[name] = weight * pattern if self.attribution else pattern
        return self._known[name]

    def _fitting(self, name: str, linear: LinearMap, weight: Tensor, outputs: int) -> Tensor:
        pattern = self.state.get(f"{name}{_PATTERN}")
        if pattern is None:
            others = ", ".join(repr(key.removesuffix(_PATTERN)) for key in self.state if key.endswith(_PATTERN))
            raise ModelError(f"no pattern was fitted for the linear map {name!r}, but for {others}; fit to this model")
        if pattern.shape != weight.shape:
            raise ModelError(
                f"the pattern of the linear map {name!r} has shape {tuple(pattern.shape)}, but the weight "
                f"{tuple(weight.shape)}; fit to this model"
            )
        known, fitted, bias = (self.state[f"{name}{_KNOWN}"], self.state.get(f"{name}{_BIAS}"), linear.bias)
        near = max(SAME, torch.finfo(weight.dtype).eps)  # a model may be rounded after it was fitted
        product = weight.cpu().double() * pattern.cpu().double()
        filtered, size = linear.by_output(product, outputs), linear.by_output(product.abs(), outputs)
        same = bool(((filtered - 1).abs() <= near * size.clamp_min(1))[known].all()) and (bias is None) == (
            fitted is None
        )
        if same and bias is not None and fitted is not None:
            same = bool((bias.detach().cpu() - fitted).abs().max() <= near * fitted.abs().max())
        if not same:
            raise ModelError(f"the pattern of the linear map {name!r} was fitted to other weights; fit to this model")
        return pattern.to(weight)

    def unknown(self) -> dict[str, tuple[int, int]]:
        """The maps that have outputs without a pattern: how many, and of how many."""
        known = {key.removesuffix(_KNOWN): value for key, value in self.state.items() if key.endswith(_KNOWN)}
        return {name: (int((~each).sum()), len(each)) for name, each in known.items() if not bool(each.all())}


class Backward(Maps):
    """Lets the signal, or relevance, back through linear maps by patterns in the place of weights."""

    def __init__(self, module: nn.Module, patterns: Patterns) -> None:
        super().__init__(module)
        self.patterns = patterns

    def met(self, name: str, linear: LinearMap, x: Tensor, _z: Tensor, channel: int) -> Back:
        def back(c: Tensor) -> Tensor:
            weight = self.patterns.back(name, linear, c.shape[channel])
            with torch.enable_grad():
                value = linear.apply(x.requires_grad_(), weight, None)
            return torch.autograd.grad(value, x, c)[0]

        return back

    def met_scale(self, weight: Tensor) -> Back:
        pattern = torch.where(weight == 0, 0, 1 / torch.where(weight == 0, 1, weight))
        factor = weight * pattern if self.patterns.attribution else pattern
        return lambda c: c * factor


class _Survey(Maps):
    """Which maps the output depends on, once the graph has run backward, and behind which a ReLU follows."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.reached: set[str] = set()
        self.rectified: set[str] = set()

    def met(self, name: str, linear: LinearMap, x: Tensor, z: Tensor, channel: int) -> Back:
        def back(c: Tensor) -> Tensor:
            self.reached.add(name)
            return c.new_ones(()).expand_as(x)  # not zero, so that what is refused on the way is refused now

        return back

    def met_rectifier(self, name: str) -> None:
        self.rectified.add(name)


class _Learning(Maps):
    """Adds the moments of the maps that are reached to those found so far."""

    def __init__(self, module: nn.Module, found: dict[str, "_Moments"], reached: set[str], gated: set[str]) -> None:
        super().__init__(module)
        self._found = found
        self._reached = reached
        self._gated = gated

    def met(self, name: str, linear: LinearMap, x: Tensor, z: Tensor, channel: int) -> Back:
        if name in self._reached:
            if name not in self._found:
                self._found[name] = _Moments(linear, name in self._gated)
            self._found[name].add(x, z, channel)
        return lambda c: c


class _Moments:
    """Sums over samples and positions of what the pattern of y = wᵀx is made of, in float64.

    `shift` is the mean of y over the first samples; taken off y, it keeps the sums from growing with the mean over all,
    which is known in the end only.
    """

    def __init__(self, linear: LinearMap, gated: bool) -> None:
        self.linear = linear
        self._gated = gated
        self._count = 0
        self._shift: Tensor | None = None
        self._y, self._squares, self._xy, self._x = (torch.zeros((), dtype=torch.float64) for _ in range(4))

    def add(self, x: Tensor, z: Tensor, channel: int) -> None:
        """Take in inputs x and what the map has made of them, its outputs along the axis `channel`."""
        linear, precise = self.linear, torch.promote_types(x.dtype, torch.float32)
        outputs = [-1 if axis == channel else 1 for axis in range(z.ndim)]
        x, z = x.to(precise), z.to(precise)
        y = z if linear.bias is None else z - linear.bias.detach().to(precise).view(outputs)
        gate = (z > 0).to(precise) if self._gated else torch.ones_like(z)
        others = [axis for axis in range(z.ndim) if axis != channel]
        if self._shift is None:
            self._shift = y.mean(others)
        centred = y - self._shift.to(y).view(outputs)
        with torch.enable_grad():
            weight = linear.weight.detach().to(precise).requires_grad_()
            filtered = linear.apply(x, weight, None)
        parts = (gate * centred, gate)
        xy, alone = (torch.autograd.grad(filtered, weight, part, retain_graph=True)[0].cpu() for part in parts)
        self._count += z.numel() // z.shape[channel]
        self._y = self._y + _total(centred, others)
        self._squares = self._squares + _total(y.square() * gate, others)
        self._xy, self._x = self._xy + xy, self._x + alone

    def result(self, name: str) -> dict[str, Tensor]:
        """The pattern: zero for an output that never is in its regime, or does not vary there; and the bias."""
        linear, outputs = self.linear, len(self._y)
        own = linear.weight.detach()
        weight, mean = own.cpu().double(), linear.per_output(self._y / self._count)
        covariance = self._xy - self._x * mean
        if not bool(torch.isfinite(covariance).all()):
            raise ModelError(f"values in the linear map {name!r} are not finite; clean the data, or the model")
        variance = linear.by_output(weight * covariance, outputs)
        sizes = linear.by_output(weight.abs() * (self._xy.abs() + (self._x * mean).abs()), outputs)
        known = (variance.abs() > SQUARES * self._squares) & (variance.abs() > CANCELLED * sizes)
        factor = torch.where(known, 1 / torch.where(known, variance, 1), 0)
        pattern = (covariance * linear.per_output(factor)).to(torch.promote_types(own.dtype, torch.float32))
        bias = {} if linear.bias is None else {"bias": linear.bias.detach().cpu().clone()}
        return {"pattern": pattern, "known": known, **bias}


def _total(values: Tensor, axes: list[int]) -> Tensor:
    """The sums over these axes, float64 on the CPU, from a device that may lack it."""
    known = values.cpu() if values.device.type == "mps" else values
    return known.sum(axes, dtype=torch.float64).cpu()


def _surveyed(model: Model, sample: Tensor) -> _Survey:
    survey = _Survey(model.module)
    task, output = _forward(model, sample, survey)
    task.backward(output, tuple(survey.leaves))
    if not survey.reached:
        raise ModelError("the output depends on no linear layer, so that there is nothing to fit patterns to")
    return survey


def _forward(model: Model, inputs: Tensor, maps: Maps) -> tuple[Task, Tensor]:
    task = Task(model, inputs, Logit(0), noise_keys(0, len(inputs)))
    with maps:
        return task, maps.current(task.output(maps.explain(leaf(inputs)), torch.arange(task.size)))
