"""Pictures as WebP inside data URIs."""

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# A larger input is shown through lossy compression, so that a report stays small.
LOSSLESS_PIXELS = 300 * 300


def webp(pixels: UInt8[np.ndarray, "h w c"], quality: int | None = None) -> bytes:
    """The picture (3 or 4 channels) as WebP, lossless unless a quality is given."""
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if quality is None:
        image.save(file, "WEBP", lossless=True, quality=100, method=4)
    else:
        image.save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()


def data_uri(picture: bytes) -> str:
    """The WebP picture as text that an HTML file can hold."""
    return f"data:image/webp;base64,{base64.b64encode(picture).decode('ascii')}"


def as_bytes(picture: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Colours from 0 to 1 as whole numbers from 0 to 255."""
    pixels: np.ndarray = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return pixels
