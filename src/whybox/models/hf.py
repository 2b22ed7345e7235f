"""Image and text classifiers and language models of transformers, from the hub or from a local folder."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from whybox.core.errors import CheckpointError, ModelError, optional_import
from whybox.core.model import Model
from whybox.models.checkpoints import Weights, few, read_weights, source
from whybox.models.preprocess import ImagePreprocess
from whybox.models.torchvision_models import prepare_torchvision

_log = logging.getLogger(__name__)
_IMAGES = "ForImageClassification"
_CLASSIFIERS = (_IMAGES, "ForSequenceClassification", "ForTokenClassification")
_KINDS = (*_CLASSIFIERS, "ForCausalLM", "LMHeadModel", "ForMaskedLM")


def load_hf(name: str, weights: Weights) -> Model:
    """`hf:ID`; labels from the configuration, preprocessing from the image processor; float32 throughout."""
    prepare_torchvision()
    transformers: Any = optional_import("transformers", "hf")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no configuration of {name!r} can be had: not a local folder, and not on the hub or offline ({error})"
        ) from error
    architecture = (config.architectures or ["nothing"])[0]
    if not architecture.endswith(_KINDS) or not hasattr(transformers, architecture):
        raise ModelError(
            f"{name!r} holds {architecture}, which is no image or text classifier and no language model "
            f"({', '.join(_KINDS)})"
        )
    kind = getattr(transformers, architecture)
    module = kind(config) if weights == "random" else _filled(kind, config, name, weights)
    images = architecture.endswith(_IMAGES)
    return Model(
        module,
        name=f"hf:{name} ({source(weights, 'pretrained')})",
        preprocess=_preprocess(transformers, name) if images else None,
        labels=[config.id2label[i] for i in range(config.num_labels)] if architecture.endswith(_CLASSIFIERS) else None,
        tokenizer=None if images else _tokenizer(transformers, name),
    )


def _tokenizer(transformers: Any, name: str) -> Any:
    """The tokenizer that comes with the model; None where there is none, or one that cannot be read."""
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        reason = "none was saved with it"
        if len(tokenizer) > len(tokenizer.all_special_ids):  # else transformers has made an empty one
            return tokenizer
    except Exception as error:  # any tokenizer may come with the model, and may fail in its own way
        reason = str(error)
    _log.warning("the tokenizer of hf:%s cannot be had (%s); give it token numbers instead of texts", name, reason)
    return None


def _filled(kind: Any, config: Any, name: str, weights: Weights) -> Any:
    """The module with its own weights or those of a file; all of them, never a head left random.

    transformers itself reads them into the module, since it may name the layers otherwise than its files do.
    """
    state = None if weights is None else read_weights(Path(weights))
    try:
        module, info = kind.from_pretrained(
            name if state is None else None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # they are refused below, with their names
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the weights of {name!r} cannot be had ({error}): pass weights=FILE or weights='random'"
        ) from error
    lacking = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if lacking:
        raise CheckpointError(f"{weights or name} does not fit the model: missing, or of another shape, {few(lacking)}")
    return module


def _preprocess(transformers: Any, name: str) -> ImagePreprocess | None:
    """The processor's values, once its output on a probe agrees; None where it does something else."""
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
        preprocess = _translate(processor)
        grid = np.mgrid[0:307, 0:413]
        probe = Image.fromarray(np.stack([grid[0] % 256, grid[1] % 256, grid.sum(0) // 3], 2).astype(np.uint8))
        theirs = torch.as_tensor(processor(probe, return_tensors="pt")["pixel_values"])[0]
        ours = preprocess(probe)
        if ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=0, atol=1e-4):
            return preprocess
        reason = "it is more than resizing, cropping and normalising"
    except Exception as error:  # any processor may come with the model, and may fail in its own way
        reason = str(error)
    _log.warning("the preprocessing of hf:%s is not understood (%s); give it tensors instead of pictures", name, reason)
    return None


def _translate(processor: Any) -> ImagePreprocess:
    """The values of a processor that resizes, crops, rescales and normalises."""
    values = processor.to_dict()
    resize, crop = None, None
    if values.get("do_resize"):
        size = values["size"]
        resize = size.get("shortest_edge") or (size["height"], size["width"])
    if isinstance(resize, int) and values.get("crop_pct"):  # ConvNeXt: below 384 resized larger, then cropped
        crop = (resize, resize)
        resize = int(resize / values["crop_pct"]) if resize < 384 else crop
    if values.get("do_center_crop"):
        crop = (values["crop_size"]["height"], values["crop_size"]["width"])
    scale = 255 * values["rescale_factor"] if values.get("do_rescale") else 255.0
    normalise = values.get("do_normalize")
    return ImagePreprocess(
        resize=resize,
        crop=crop,
        interpolation=Image.Resampling(values.get("resample", Image.Resampling.BILINEAR)).name.lower(),
        mean=tuple(mean / scale for mean in values["image_mean"]) if normalise else (0.0,),
        std=tuple(std / scale for std in values["image_std"]) if normalise else (1 / scale,),
        crop_offset="floor",
    )
