"""`load`: a model by its name, ready to be explained."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from whybox.core.errors import InputError, ModelError, UnknownNameError
from whybox.core.model import Model
from whybox.models.checkpoints import Weights
from whybox.models.digits import load_digits
from whybox.models.file import load_file
from whybox.models.hf import load_hf
from whybox.models.preprocess import ImagePreprocess
from whybox.models.timm_models import load_timm
from whybox.models.torchvision_models import load_torchvision

_LIBRARIES: dict[str, Callable[[str, Weights], Model]] = {
    "torchvision": load_torchvision,
    "timm": load_timm,
    "hf": load_hf,
}
_FORMS = "A model is 'digits', 'torchvision:NAME', 'timm:NAME', 'hf:ID' or 'path/to/file.py:FACTORY'."


def load(spec: str, weights: str | Path | None = None, device: str | torch.device | None = None) -> Model:
    """Load a model by name, in evaluation mode.

    The result carries what explaining needs: `.module`, `.preprocess` (PIL image → one input), `.domain` (from the
    preprocessing), `.labels`, `.input_size` and, of a text model, `.tokenizer`. What is not known is None: a text model
    has no `preprocess`.
    Whatever is drawn at random while loading is drawn with seed 0, so that `weights="random"` always gives the same
    model; torch's own generator is left as it was.

    Args:
        spec: `digits` (a small CNN that comes with whybox), `torchvision:NAME` (image classifiers), `timm:NAME`,
            `hf:ID` (image or text classifiers, language models; the ID of a repository or a local folder), or
            `path/to/file.py:FACTORY`, a function without arguments that returns a `torch.nn.Module` or, to state
            labels and preprocessing too, a `whybox.Model`. Where its `preprocess` is an `ImagePreprocess`, the
            domain and the input's size follow from that.
        weights: None for the library's default pretrained weights, found or downloaded by the library itself (for a
            file: whatever the factory returns); "random" for random ones; the name of a set of torchvision weights,
            such as "IMAGENET1K_V1"; or a local `.safetensors` file, or a `.pt` or `.pth` file that holds tensors
            only. With a file, preprocessing and labels are those of the architecture's default weights.
        device: where to put the model; the CPU if it is not given.

    Raises:
        UnknownNameError: there is no such model or set of weights; the message offers the nearest names.
        MissingExtraError: the library that the model comes from is not installed.
        CheckpointError: the file of weights is damaged, does not fit, or would run code when read.
        ModelError: the weights cannot be had (offline, for example), the factory fails, or there is no such device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = _load(spec, weights)
    if isinstance(model.preprocess, ImagePreprocess):
        model.domain = model.domain or model.preprocess.domain
        model.input_size = model.input_size or model.preprocess.input_size
    _move(model.module, device)
    model.module.eval()
    return model


def _load(spec: str, weights: Weights) -> Model:
    """The model on the CPU, in whatever mode its library returns it."""
    if spec == "digits":
        return load_digits(weights)
    path, _, factory = spec.rpartition(":")
    if path.endswith(".py"):
        return load_file(Path(path), factory, weights)
    if spec.endswith(".py"):
        raise InputError(f"say which function of {spec} makes the model: '{spec}:FACTORY'")
    kind, _, name = spec.partition(":")
    if kind in _LIBRARIES and name:
        return _LIBRARIES[kind](name, weights)
    raise UnknownNameError("model", spec, ("digits", *(f"{kind}:{name or 'NAME'}" for kind in _LIBRARIES)), _FORMS)


def _move(module: nn.Module, device: str | torch.device | None) -> None:
    """Put the module on the device, or say that there is none."""
    if device is None:
        return
    try:
        module.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises an AssertionError
        raise ModelError(f"the model cannot be put on the device '{device}': {error}") from error
