"""Files of weights: read without running code from them, and fitted into a module or refused with the reason."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from whybox.core.errors import CheckpointError

Weights = str | Path | None
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Put the weights of a local file into the module.

    Understood are a state dict, one wrapped as {"state_dict": …}, {"model_state_dict": …} or {"model": …}, and one
    whose names all begin with `module.`, as data-parallel training saves it.

    Raises:
        CheckpointError: the file is absent, damaged, would run code, or does not fit the module.
    """
    path = Path(path)
    state = read_weights(path)
    expected = module.state_dict()
    wrong = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(value.shape)} in the model"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(f"{path} does not fit the model: shapes differ ({few(wrong)})")
    missing, unexpected = module.load_state_dict(state, strict=False)
    if missing or unexpected:
        lacks = f"missing {few(missing) or 'nothing'}; not in the model {few(unexpected) or 'nothing'}"
        raise CheckpointError(f"{path} does not fit the model: {lacks}")


def source(weights: Weights, default: str) -> str:
    """Where the weights are from, for the model's name: a file's name, "random weights", or the default ones."""
    if weights is None:
        return default
    return "random weights" if weights == "random" else Path(weights).name


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in the file, unwrapped; CheckpointError if it is absent, damaged or would run code."""
    if not path.is_file():
        raise CheckpointError(
            f"there is no file of weights {str(path)!r}; weights are a {', '.join(SUFFIXES[:3])} file, 'random', "
            "or left out for the default ones"
        )
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path} holds no state dict (names and tensors); save one with model.state_dict()")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_safetensors(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails in many ways
        message = str(error) if isinstance(error, pickle.UnpicklingError) else ""
        if "GLOBAL" in message or ("Unsupported operand" in message and _is_pickle(path)):
            raise CheckpointError(
                f"{path} holds more than tensors and may run code when read, so it was not read. Where you trust "
                "its source, save model.state_dict() as safetensors (safetensors.torch.save_file) and give that"
            ) from error
        raise CheckpointError(f"{path} is damaged, or no file of weights that torch.load can read") from error


def _is_pickle(path: Path) -> bool:
    """Whether the file begins as a bare pickle does."""
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def few(names: list[str], count: int = 5) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")
