"""Latent: a generator with what is needed to find inputs in it, as a value."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from whybox.contrast.latent import files
from whybox.contrast.latent.inversion import invert
from whybox.contrast.latent.nets import Plan
from whybox.core.errors import CheckpointError, InputError, ModelError
from whybox.core.method import digest_of
from whybox.core.value import Value

WHAT = "latent model"
# The quantiles of the reconstruction distances that are kept: 0, 1, …, 100 %.
QUANTILES = 101


@dataclass(frozen=True, eq=False, repr=False)
class Latent(Value):
    """A latent model G: latent points z, distributed N(0, I) in training, to data x = G(z).

    Trained by `whybox.latent.train`, read from a file by `Latent.load`, or made of a generator of your own by
    `Latent.of`. The nets are copies in eval mode without gradients of their own; nothing here changes them, nor the
    modules that were given. Two latent models are equal when their nets are, bit for bit (`digest`).

    Args:
        generator: a module from (n, size) to (n, *features), in the units of the data.
        size: the dimension of the latent space.
        encoder: a module from data to (n, size) or more numbers, of which the first `size` are a point; or None.
        critic: a module from data to (n, 1), higher where more real; or None.
        spread: the quantiles 0, 1, …, 100 % of `distance` over training data, each inverted (101,); or None.
        plan: how to build the nets anew, for `save`; None for a generator of one's own.
        training: what it was trained on and how, as plain values.
    """

    generator: nn.Module
    size: int
    encoder: nn.Module | None = None
    critic: nn.Module | None = None
    spread: Tensor | None = None
    plan: Plan | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        for name in ("generator", "encoder", "critic"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))
        object.__setattr__(self, "shape", _shape(self.generator, self.size))
        what = {"": torch.frombuffer(bytearray(str(self.generator).encode()), dtype=torch.uint8), **self._tensors()}
        object.__setattr__(self, "digest", digest_of(what))

    @classmethod
    def of(
        cls, generator: nn.Module, size: int, *, encoder: nn.Module | None = None, data: Tensor | None = None
    ) -> "Latent":
        """A generator of your own: any module from (n, size) to data, for which z ~ N(0, I) are typical points.

        Args:
            generator: it is copied, so that it is never changed; the copy runs in eval mode.
            size: the dimension of its latent space.
            encoder: a module from data to points, with which `invert` begins.
            data: samples (n, *features), some hundred are enough, from which `spread` is measured.
        """
        latent = cls(generator, size, encoder)
        return latent if data is None else latent.measured(data)

    def decode(self, z: Float[Tensor, "n size"]) -> Float[Tensor, "n ..."]:
        """G(z), differentiable with respect to z; each row alone."""
        x: Tensor = self.generator(z)
        return x

    def encode(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n size"]:
        """The encoder's point for each sample, in one pass; InputError where there is no encoder."""
        if self.encoder is None:
            raise InputError("this latent model has no encoder; invert(x) finds the points without one")
        with torch.no_grad():
            points: Tensor = self.encoder(x)[:, : self.size]
        return points

    def invert(
        self, x: Float[Tensor, "n ..."], *, seed: int = 0, steps: int = 100, restarts: int = 8
    ) -> Float[Tensor, "n size"]:
        """z0 = argmin_z ‖G(z) − x‖², sought by Adam from several starts, all at once; the best point met is kept.

        Adam's second moment is one for all dimensions, so that those without a say stay where they began.

        The first start is the encoder's point, where there is an encoder; the others are drawn from N(0, I), keyed by
        (seed, sample, start). There is no term that holds z near the origin.
        Cost: (steps + 1) · restarts decodings and their gradients for each sample.
        Limits: a local optimum; alone and in a batch the points agree to about 1e-5 in single precision.

        Args:
            x: the data.
            seed: of the starts.
            steps: of Adam from each start.
            restarts: the number of starts.

        Raises:
            InputError: the data have not the shape of what the generator gives, or are not finite.
        """
        self._check(x, steps, restarts)
        guess = None if self.encoder is None else self.encode(x)
        return invert(self.decode, x, guess, self.size, seed, steps, restarts)[0]

    def distance(self, x: Float[Tensor, "n ..."], z: Float[Tensor, "n size"]) -> Float[Tensor, " n"]:
        """The root of the mean square of G(z) − x over its values, in the units of the data (n,)."""
        with torch.no_grad():
            return (self.decode(z) - x).square().flatten(1).mean(1).sqrt()

    def share_nearer(self, distance: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The share of the training data that G reconstructs better than at this distance (n,), from 0 to 1.

        Where it is 1, the latent model does not know such an input; NaN where `spread` is not known.
        """
        if self.spread is None:
            return torch.full_like(distance, torch.nan)
        spread = self.spread.to(distance)
        above = torch.searchsorted(spread, distance.contiguous()).clamp(1, len(spread) - 1)
        low, high = spread[above - 1], spread[above]
        inside = ((distance - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)).clamp(0, 1)
        return (above - 1 + inside) / (len(spread) - 1)

    def realism(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """The critic's score of each sample (n,), higher where more real; comparable within one latent model only.

        It was trained between data and generated ones. Elsewhere it says nothing: on MNIST, inverted pictures score
        higher than real ones. Whether a sample is known at all, `share_nearer` tells.
        """
        if self.critic is None:
            raise InputError("this latent model has no critic; one trained with kind='wgan-gp' or 'wgan' has")
        with torch.no_grad():
            scores: Tensor = self.critic(x)[:, 0]
        return scores

    def measured(self, data: Float[Tensor, "n ..."], *, seed: int = 0) -> "Latent":
        """The same latent model with `spread` measured on these data, each inverted with the default settings."""
        distance = self.distance(data, self.invert(data, seed=seed)).double()
        places = torch.linspace(0, 1, QUANTILES, dtype=torch.float64, device=distance.device)
        return replace(self, spread=distance.quantile(places).float().cpu())

    def to(self, *args: Any) -> "Latent":
        """The same latent model on a device or in a dtype, as `Module.to` takes them."""
        nets = {name: getattr(self, name) for name in ("generator", "encoder", "critic")}
        return replace(self, **{name: net and copy.deepcopy(net).to(*args) for name, net in nets.items()})

    def save(self, path: str | Path) -> None:
        """Write it into one safetensors file."""
        if self.plan is None:
            raise InputError("a file keeps no code: save your generator's weights, and give it to Latent.of again")
        files.check_writable(Path(path))
        files.write(Path(path), WHAT, self._tensors(), {"plan": asdict(self.plan), "training": dict(self.training)})

    @classmethod
    def load(cls, path: str | Path) -> "Latent":
        """Read a file that `save` or `whybox.latent.train` has written; nothing in it is run.

        Raises:
            CheckpointError: the file is absent, damaged, or none of these.
        """
        tensors, record = files.read(Path(path), WHAT, "train one with whybox.latent.train(data, out=FILE)")
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record["plan"].items()}
            plan = Plan(**fields)
            nets = {
                name: _filled(getattr(plan, name)(), tensors, name)
                for name in ("generator", "encoder", "critic")
                if any(key.startswith(f"{name}.") for key in tensors)
            }
            return cls(size=plan.size, plan=plan, training=record["training"], spread=tensors.get("spread"), **nets)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path} does not fit the latent models of this version: {error}") from error

    def config(self) -> dict[str, Any]:
        """What tells it from others, as plain values; the nets themselves are in its file."""
        return {"name": "latent", "digest": self.digest, **{k: v for k, v in self.training.items() if k in _TOLD}}

    def _tensors(self) -> dict[str, Tensor]:
        nets = {"generator": self.generator, "encoder": self.encoder, "critic": self.critic}
        tensors = {f"{net}.{k}": v for net, module in nets.items() if module for k, v in module.state_dict().items()}
        return tensors if self.spread is None else {**tensors, "spread": self.spread}

    def _check(self, x: Tensor, steps: int, restarts: int) -> None:
        if x.shape[1:] != self.shape or not len(x):
            raise InputError(f"the latent model gives samples of shape {self.shape}, not {tuple(x.shape[1:])}")
        if not x.is_floating_point() or not bool(torch.isfinite(x).all()):
            raise InputError("only finite numbers in floating point can be found in a latent space")
        if steps < 0 or restarts < 1:
            raise InputError(
                f"inversion takes at least one start and no negative number of steps, not {restarts}, {steps}"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Latent) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        about = "".join(f"{self.training[key]}, " for key in _TOLD if key in self.training)
        return f"Latent({about}{self.size} → {self.shape}, {self.digest[:8]})"


_TOLD = ("data", "kind")


def _frozen(module: nn.Module | None) -> nn.Module | None:
    """A copy in eval mode whose weights want no gradients; None for None."""
    if module is None:
        return None
    if not isinstance(module, nn.Module):
        raise InputError(f"a net of a latent model is a torch.nn.Module, not {type(module).__name__}")
    return copy.deepcopy(module).eval().requires_grad_(False)


def _filled(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    module.load_state_dict(own)
    return module


def _shape(generator: nn.Module, size: int) -> tuple[int, ...]:
    """The shape of one generated sample; ModelError unless the generator does what is asked of it."""
    like = next((t for t in (*generator.parameters(), *generator.buffers()) if t.is_floating_point()), torch.zeros(()))
    z = torch.linspace(-1, 1, 2 * size, device=like.device, dtype=like.dtype).view(2, size).requires_grad_()
    with torch.random.fork_rng(devices=()), torch.inference_mode(False), torch.enable_grad():
        try:
            x = generator(z)
        except Exception as error:
            raise ModelError(f"the generator fails on latent points of shape {tuple(z.shape)}: {error}") from error
        if not isinstance(x, Tensor) or x.ndim < 2 or len(x) != 2:
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ModelError(f"the generator gives {found} for two latent points; it must give one sample for each")
        if not x.requires_grad or not bool(torch.isfinite(x).all()):
            raise ModelError("the generator's output is not finite, or does not depend on z so that gradients flow")
        if not torch.equal(x, generator(z)):
            raise ModelError("the generator gives another sample each time for the same z; fix its noise")
    return tuple(x.shape[1:])
