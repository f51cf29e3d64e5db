"""Overlays of CAMs and label maps on images, and pictures as data URIs."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from artifacts.view import Cam, Labels, Pixels
from excel_core.datasets.palette import IGNORE, VOC_PALETTE

__all__ = [
    "bounded_data_uri", "fit_image", "fit_labels", "jpeg_data_uri", "overlay_cam", "overlay_labels", "png_data_uri",
]  # fmt: skip

CAM_WEIGHT = 0.65  # of the colour map over the grey image
LABEL_WEIGHT = 0.55  # of the palette colour over the image
MARK_ROOM = 6.0  # pixels from a region's deepest point to its edge, below which no number fits


def overlay_cam(image: Pixels, cam: Cam, colour_map: str = "inferno") -> Pixels:
    """image (H, W, 3) uint8 RGB, cam (h, w) float in [0, 1], resized bilinearly → (H, W, 3) uint8; in one of matplotlib's
    colour maps.

    The image is greyed first: over its own colours the even steps of the colour map would not read as even.
    """
    height, width = image.shape[:2]
    values = np.nan_to_num(np.asarray(cam, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    full = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
    colours = colormaps[colour_map](np.clip(full, 0, 1))[..., :3] * 255
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None]
    return _to_uint8(CAM_WEIGHT * colours + (1 - CAM_WEIGHT) * grey)


def overlay_labels(image: Pixels, labels: Labels) -> Pixels:
    """image (H, W, 3) uint8 RGB, labels (H, W) uint8 → (H, W, 3) uint8.

    Classes in their VOC colours, outlined in white with black outside, and numbered (the label value) where a
    number fits, so that neither class nor outline hangs on colour alone. Background stays as it is.
    """
    colours = VOC_PALETTE[labels].astype(np.float32)
    weight = np.where(labels == 0, 0.0, LABEL_WEIGHT)[..., None]
    result = _to_uint8(weight * colours + (1 - weight) * image)
    shown = (labels > 0) & (labels != IGNORE)
    edge = _contour(labels, shown)
    result[edge & shown] = 255
    result[edge & ~shown] = 0
    return _numbered(result, labels)


def fit_image(image: Pixels, side: int) -> Pixels:
    """image (H, W, 3) → longer side `side` when larger, enlarged by a whole factor up to `side` when smaller."""
    return np.asarray(Image.fromarray(image).resize(_fitted(image.shape, side), Image.Resampling.BICUBIC))


def fit_labels(labels: Labels, side: int) -> Labels:
    """labels (H, W) → the size `fit_image` gives an image of that size, by nearest value."""
    return np.asarray(Image.fromarray(labels).resize(_fitted(labels.shape, side), Image.Resampling.NEAREST))


def jpeg_data_uri(image: Pixels, max_side: int = 256, quality: int = 80) -> str:
    """image (H, W, 3) uint8 RGB, shrunk to `max_side` where larger → `data:image/jpeg;base64,…`."""
    picture = Image.fromarray(image)
    picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_data_uri(png: bytes) -> str:
    """The bytes of a PNG file → `data:image/png;base64,…`."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def bounded_data_uri(png: bytes, most: int) -> str:
    """The bytes of a PNG file → a data URI of at most `most` characters: as it is, else as JPEG of lower quality, then of
    smaller size. ValueError where even a thumbnail does not fit."""
    uri = png_data_uri(png)
    if len(uri) <= most:
        return uri
    with Image.open(io.BytesIO(png), formats=["PNG"]) as file:
        picture = np.asarray(file.convert("RGB"))
    side = max(picture.shape[:2])
    for size, quality in [(side, 90), (side, 80), (side, 70), *((side * share // 8, 70) for share in (6, 4, 3, 2, 1))]:
        uri = jpeg_data_uri(picture, size, quality)
        if len(uri) <= most:
            return uri
    raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels does not fit {most} characters")


def _fitted(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(H, W, …) → (width, height) as Pillow wants it."""
    longest = max(shape[:2])
    factor = side / longest if longest > side else side // longest
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def _contour(labels: Labels, shown: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) on both sides of a change of label, where at least one side is a class."""
    edge = np.zeros(labels.shape, dtype=bool)
    across = (labels[:, 1:] != labels[:, :-1]) & (shown[:, 1:] | shown[:, :-1])
    down = (labels[1:] != labels[:-1]) & (shown[1:] | shown[:-1])
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _numbered(image: Pixels, labels: Labels) -> Pixels:
    """Write each class's label value at the point of its region that is farthest from the region's edge."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    size = max(10, max(labels.shape) // 12)
    font = ImageFont.load_default(size=size)
    for value in np.unique(labels):
        if value in (0, IGNORE):
            continue
        depth = distance_transform_edt(np.pad(labels == value, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[row, column] >= MARK_ROOM:
            place = (_inside(int(column), picture.width, size), _inside(int(row), picture.height, size))
            draw.text(place, str(value), font=font, anchor="mm", fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)


def _inside(place: int, extent: int, size: int) -> int:
    """`place` moved so that a number of height `size` is not cut by the border, where the picture is that large."""
    room = min(size, extent // 2)
    return min(max(place, room), extent - room)


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    result: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result
