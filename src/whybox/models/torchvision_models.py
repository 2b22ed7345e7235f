"""Image classifiers of torchvision; and torchvision itself, imported beside a torch that it was not built for."""

import importlib.util
import sys
import warnings
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import torch

from whybox.core.errors import ModelError, UnknownNameError, optional_import
from whybox.core.model import Model
from whybox.models.checkpoints import SUFFIXES, Weights, load_weights, source
from whybox.models.preprocess import ImagePreprocess

_LOCK = Lock()
_DECLARED: list[torch.library.Library] = []  # operators live as long as the library that declared them


def import_torchvision() -> ModuleType:
    """The package torchvision, whichever torch it was built for.

    The wheels on the package index are built for CUDA. Beside a CPU torch their compiled operators do not load, and
    the import fails when it registers how `nms` and `qnms` behave. The two are then declared (not implemented:
    no classifier uses them), and the import tried again.
    """
    with _LOCK:
        try:
            return optional_import("torchvision", "vision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        if not _DECLARED:
            library: Any = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _DECLARED.append(library)
        return optional_import("torchvision", "vision")


def prepare_torchvision() -> None:
    """Import torchvision where it is installed, for the sake of libraries that will import it themselves."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()


def load_torchvision(name: str, weights: Weights) -> Model:
    """`torchvision:NAME`; preprocessing and labels from the metadata of its weights."""
    models: Any = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("image classifier in torchvision", name, known)
    sets = models.get_model_weights(name)
    chosen, file = sets.DEFAULT, None
    if isinstance(weights, Path) or (weights is not None and weights.endswith(SUFFIXES)):
        file = Path(weights)
    elif weights is not None and weights != "random":
        if weights not in sets.__members__:
            hint = f"Weights are a name, a local file ({', '.join(SUFFIXES[:3])}) or 'random'."
            raise UnknownNameError(f"set of weights for {name}", weights, sets.__members__, hint)
        chosen = sets[weights]
    if file is not None or weights == "random":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of how Inception's random weights will be drawn one day
            module = models.get_model(name, weights=None)
    else:
        try:
            module = models.get_model(name, weights=chosen)
        except (OSError, RuntimeError) as error:  # no network; a broken download
            raise ModelError(
                f"the weights {chosen.name} of {name} cannot be had ({error}): pass weights=FILE or weights='random'"
            ) from error
    if hasattr(module, "transform_input"):  # Inception and GoogLeNet normalise anew, as their weights were trained
        module.transform_input = True
    if file is not None:
        load_weights(module, file)
    return Model(
        module,
        name=f"torchvision:{name} ({chosen.name if file is None and weights != 'random' else source(weights, '')})",
        preprocess=_preprocess(chosen.transforms()),
        labels=chosen.meta["categories"],
    )


def _preprocess(transforms: Any) -> ImagePreprocess:
    """The values of torchvision's ImageClassification transforms."""
    side, crop = transforms.resize_size, transforms.crop_size
    return ImagePreprocess(
        resize=side[0] if len(side) == 1 else tuple(side),
        crop=(crop[0], crop[-1]),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
