"""Randomisation: an explanation that stays the same when the weights are destroyed does not explain the model."""

import copy
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn

from whybox.core.block import mix
from whybox.core.errors import InputError, ModelError
from whybox.core.model import Model

Weights = Literal["shuffled", "initial"]


def randomised(
    model: Model, seed: int = 0, layers: Iterable[str] | None = None, weights: Weights = "shuffled"
) -> Model:
    """A copy of the model in which layers have lost what they have learned.

    A layer is a module with parameters of its own, whatever their names: also an attention whose weights are in one
    tensor, or a module with a bare parameter. Every parameter is drawn anew from a seed of its own, which follows from
    `seed` and the parameter's name alone, so that it does not matter which other layers are randomised; one that
    several layers share stays shared. Buffers, such as the statistics of batch norm, are kept.

    Args:
        model: it stays as it is.
        seed: another one gives another copy.
        layers: the names of the layers, "" for the model's own parameters; None for all.
        weights: "shuffled": the entries of each parameter change places, so that activations stay in their usual
            range; a parameter whose entries are all equal stays as it is. "initial": as before the training, by the
            module's `reset_parameters`; the parameters of modules that have none are shuffled.

    Cost: a copy of the model.
    Raises: ModelError where the module cannot be copied.
    Source: the parameter randomisation test of Adebayo et al. 2018, arXiv 1810.03292.
    """
    try:
        module = copy.deepcopy(model.module)
    except Exception as error:  # a module may refuse in its own way
        raise ModelError(f"the model cannot be copied, so its weights cannot be randomised: {error}") from error
    parts = dict(module.named_modules())
    done: set[int] = set()
    with torch.no_grad():
        for name in parameter_layers(module) if layers is None else layers:
            if name not in parts:
                raise InputError(f"the model has no layer {name!r} to randomise")
            reset = _initialiser(parts[name]) if weights == "initial" else None
            if reset is not None:
                _reset(reset, mix_text(seed, name), parts[name])
            else:
                _shuffle(name, parts[name], seed, done)
    found = copy.copy(model)  # with its chunk sizes, found and to be found: the copies take as long
    found.module, found.name = module, f"{model.name} with {weights} weights"
    return found


def parameter_layers(module: nn.Module) -> list[str]:
    """The names of all modules with parameters of their own, as they are declared: from input to output, as a rule."""
    return [name for name, part in module.named_modules() if any(True for _ in part.parameters(recurse=False))]


def layers_that_differ(one: nn.Module, other: nn.Module) -> list[str]:
    """The layers of which a parameter is not the same in both copies of a module, as they are declared."""
    parts = dict(other.named_modules())

    def differ(name: str, part: nn.Module) -> bool:
        own, others = part.named_parameters(recurse=False), dict(parts[name].named_parameters(recurse=False))
        return any(not torch.equal(parameter, others[key]) for key, parameter in own)

    return [name for name, part in one.named_modules() if differ(name, part)]


def mix_text(key: int, text: str) -> int:
    """A key from a key and a text; different pairs give independent streams of noise."""
    return mix(key, int.from_bytes(text.encode(), "little"))


def _shuffle(name: str, part: nn.Module, seed: int, done: set[int]) -> None:
    for key, parameter in part.named_parameters(recurse=False):
        if id(parameter) not in done:
            done.add(id(parameter))
            generator = torch.Generator().manual_seed(mix_text(seed, f"{name}.{key}"))
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))


def _initialiser(part: nn.Module) -> Callable[[], object] | None:
    """What gives the module its first weights; `MultiheadAttention` keeps its own under a private name."""
    found = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
    return found if callable(found) else None


def _reset(function: Callable[[], object], seed: int, part: nn.Module) -> None:
    """Call what draws a module's first weights from torch's own generators, which are left as they were.

    Its buffers, and all that belongs to modules inside it, are put back: a batch norm's reset forgets its statistics,
    an attention's changes the layer behind it.
    """
    own = {id(parameter) for parameter in part.parameters(recurse=False)}
    others = [(x, x.clone()) for x in (*part.parameters(), *part.buffers()) if id(x) not in own]
    devices = sorted({p.device.index or 0 for p in part.parameters(recurse=False) if p.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed devices that are not forked
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        function()
    for tensor, before in others:
        tensor.copy_(before)
