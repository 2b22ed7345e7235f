"""Everything that a run must leave as it found it, in a form that can be compared."""

from typing import Any

import numpy
import torch
from torch import Tensor, nn


def bits(x: Tensor | None) -> Any:
    """The value of a tensor, bit for bit."""
    if x is None:
        return None
    return x.dtype, tuple(x.shape), x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def of_tensor(x: Tensor | None) -> Any:
    """Identity, value, version, flags and gradient."""
    if x is None:
        return None
    version = None if x.is_inference() else x._version
    grad = x.grad if x.is_leaf else None
    return id(x), bits(x), version, x.requires_grad, id(grad), bits(grad), None if grad is None else grad._version


def of_buffer(x: Tensor | None) -> Any:
    """As of_tensor without the version: a buffer that a forward edits is written back."""
    if x is None:
        return None
    return id(x), bits(x), x.requires_grad, id(x.grad), bits(x.grad)


def of_module(module: nn.Module) -> Any:
    """The state of a module and of all its submodules."""
    return {
        name: {
            "training": part.training,
            "parameters": {key: of_tensor(value) for key, value in part._parameters.items()},
            "buffers": {key: of_buffer(value) for key, value in part._buffers.items()},
            "order": [list(part._parameters), list(part._buffers), list(part._modules)],
            "children": {key: id(value) for key, value in part._modules.items()},
            "hooks": {
                key: (id(value), list(value.items())) for key, value in vars(part).items() if key.endswith("_hooks")
            },
            "tensors": {key: of_tensor(value) for key, value in vars(part).items() if isinstance(value, Tensor)},
        }
        for name, part in module.named_modules(remove_duplicate=False)
    }


def of_process() -> Any:
    """Modes, flags and random generators; not that of `random`, from which beartype draws in the tests."""
    name, keys, *rest = numpy.random.get_state()
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "torch": bits(torch.get_rng_state()),
        "numpy": (name, keys.tobytes(), *rest),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.allow_tf32,
        ),
        "mkldnn": torch.backends.mkldnn.enabled,
        "threads": torch.get_num_threads(),
        "global hooks": (
            len(nn.modules.module._global_forward_hooks),
            len(nn.modules.module._global_forward_pre_hooks),
            len(nn.modules.module._global_backward_hooks),
        ),
    }


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two snapshots differ, in words short enough to read."""
    if type(before) is type(after) and isinstance(before, dict) and before.keys() == after.keys():
        return [line for key in before for line in differences(before[key], after[key], f"{path}/{key}")]
    if type(before) is type(after) and isinstance(before, (tuple, list)) and len(before) == len(after):
        return [line for i, old in enumerate(before) for line in differences(old, after[i], f"{path}/{i}")]
    return [] if before == after else [f"{path}: {before!r:.80} became {after!r:.80}"]
