"""Reading a picture from a file that nobody vouches for."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from whybox.core.errors import InputError

LARGEST = 50_000_000  # pixels


def read_image(path: str | Path) -> Image.Image:
    """A picture as a PIL image in mode RGB, upright, safe to hand to a model's preprocessing.

    The camera's orientation (EXIF) is applied. Transparency is laid over white. Of an animation the first frame is
    taken. Sixteen-bit grey is scaled to eight bits; grey becomes three equal channels; CMYK and palettes are
    converted. Colour profiles are ignored.

    Raises:
        InputError: there is no such file, it is no picture, it is truncated, it has more than 50 megapixels (found
            out from its header, before decoding), or its values are 32-bit numbers without a stated range.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not a picture" if path.is_dir() else "does not exist"
        raise InputError(f"{str(path)!r} {what}; give the path of a picture (PNG, JPEG, WebP, …)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(_too_large(path, "far more than that")) from error
    except Exception as error:  # a damaged file makes Pillow's many readers fail in many ways
        raise InputError(f"{path} cannot be read as a picture: it is none, or it is damaged") from error
    with image:
        if image.width * image.height > LARGEST:
            raise InputError(_too_large(path, f"{image.width} × {image.height}"))
        try:
            return _rgb(ImageOps.exif_transpose(image))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path} cannot be decoded: it is truncated or damaged ({error})") from error


def _too_large(path: Path, size: str) -> str:
    return f"{path} has more than {LARGEST // 1_000_000} megapixels ({size}); make it smaller first"


def _rgb(image: Image.Image) -> Image.Image:
    """The picture in eight-bit RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise InputError("the picture holds 32-bit numbers without a stated range; save it with 8 or 16 bits")
        image = Image.fromarray((values // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
