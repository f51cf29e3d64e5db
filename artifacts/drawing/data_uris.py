"""Pictures as data URIs, which a page or an artifact holds in its own text."""

import base64
import io

import numpy as np
from PIL import Image

from artifacts.view import Pixels

__all__ = ["PNG_URI", "bounded_data_uri", "jpeg_data_uri", "png_data_uri", "webp_data_uri"]

PNG_URI = "data:image/png;base64,"


def jpeg_data_uri(image: Pixels, max_side: int = 256, quality: int = 80) -> str:
    """image (H, W, 3) uint8 RGB, shrunk to `max_side` where larger → `data:image/jpeg;base64,…`."""
    picture = Image.fromarray(image)
    picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_data_uri(png: bytes) -> str:
    """The bytes of a PNG file → `data:image/png;base64,…`."""
    return PNG_URI + base64.b64encode(png).decode("ascii")


def webp_data_uri(image: Pixels, max_side: int, quality: int | None) -> str:
    """image (H, W, 3) uint8 RGB, shrunk to `max_side` where larger → `data:image/webp;base64,…`; quality None: without loss.
    It takes two thirds of the bytes of a JPEG that looks the same, and a chart without loss a third of its PNG's."""
    picture = Image.fromarray(image)
    picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=quality is None, quality=100 if quality is None else quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def bounded_data_uri(png: bytes, max_length: int) -> str:
    """The bytes of a PNG file → a WebP data URI of at most `max_length` characters: without loss, else of lower quality, then
    of smaller size. ValueError where even a thumbnail does not fit."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as file:
        picture = np.asarray(file.convert("RGB"))
    side = max(picture.shape[:2])
    # Worse quality is less of a loss than fewer pixels, so it comes first.
    attempts = [(side, None), (side, 90), (side, 80), (side, 70), *((side * eighths // 8, 70) for eighths in (6, 4, 3, 2, 1))]
    for size, quality in attempts:
        uri = webp_data_uri(picture, size, quality)
        if len(uri) <= max_length:
            return uri
    raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels does not fit {max_length} characters")
