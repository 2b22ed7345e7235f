"""Models of timm, PyTorch Image Models."""

import logging
import math
from typing import Any

from whybox.core.errors import ModelError, UnknownNameError, optional_import
from whybox.core.model import Model
from whybox.models.checkpoints import Weights, load_weights, source
from whybox.models.preprocess import ImagePreprocess
from whybox.models.torchvision_models import prepare_torchvision

_log = logging.getLogger(__name__)


def load_timm(name: str, weights: Weights) -> Model:
    """`timm:NAME`; preprocessing from the model's data configuration, labels where it has ImageNet's 1000 classes."""
    prepare_torchvision()
    timm: Any = optional_import("timm", "vision")
    if not timm.is_model(name):
        raise UnknownNameError("model in timm", name, timm.list_models())
    try:
        module = timm.create_model(name, pretrained=weights is None)
    except Exception as error:  # what a failed download raises depends on the hub's client and on the network
        if weights is not None:
            raise
        raise ModelError(
            f"the pretrained weights of {name} cannot be had ({error}): pass weights=FILE or weights='random'"
        ) from error
    if weights is not None and weights != "random":
        load_weights(module, weights)
    return Model(
        module,
        name=f"timm:{name} ({source(weights, module.pretrained_cfg.get('tag') or 'pretrained')})",
        preprocess=_preprocess(name, timm.data.resolve_model_data_config(module)),
        labels=_labels(timm) if module.num_classes == 1000 else None,
    )


def _preprocess(name: str, config: dict[str, Any]) -> ImagePreprocess | None:
    """What timm's own evaluation transforms do with this configuration; None where ImagePreprocess cannot say it."""
    channels, height, width = config["input_size"]
    scaled = math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"])
    square, squash = height == width, config["crop_mode"] == "squash"
    if channels != 3 or not (squash or (square and config["crop_mode"] == "center")):
        _log.warning("the preprocessing of timm:%s is not understood; give it tensors instead of pictures", name)
        return None
    return ImagePreprocess(
        resize=scaled if squash else scaled[0],
        crop=(height, width),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _labels(timm: Any) -> list[str]:
    """The first word of each ImageNet class, as torchvision names them."""
    info = timm.data.ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index).partition(",")[0] for index in range(1000)]
