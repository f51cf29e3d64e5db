"""Overlays on photos: CAMs as colour maps, label maps as class colours with outlines and numbers."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from artifacts.view import Cam, Labels, Pixels
from excel_core.datasets.palette import IGNORE, VOC_PALETTE

__all__ = ["STEP_NAMES", "class_mask", "deepest_point", "fit_image", "fit_labels", "overlay_cam", "overlay_labels"]

# Of refinement, below pictures.
STEP_NAMES = {"raw": "raw", "affinity": "+ affinity", "par": "+ PAR", "crf": "+ CRF", "votes": "+ mask votes (+SAM)"}
CAM_WEIGHT = 0.65  # of the colour map over the grey image
LABEL_WEIGHT = 0.55  # of the palette colour over the image
MIN_NUMBER_DEPTH = 6.0  # pixels from a region's deepest point to its edge, below which no number fits


def overlay_cam(image: Pixels, cam: Cam, colour_map: str = "inferno") -> Pixels:
    """image (H, W, 3) uint8 RGB, cam (h, w) float in [0, 1], resized bilinearly → (H, W, 3) uint8: the CAM in one of
    matplotlib's colour maps over the greyed image."""
    height, width = image.shape[:2]
    finite_cam = np.nan_to_num(np.asarray(cam, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    full = np.asarray(Image.fromarray(finite_cam).resize((width, height), Image.Resampling.BILINEAR))
    colours = colormaps[colour_map](np.clip(full, 0, 1))[..., :3] * 255
    # Over the image's own colours the even steps of the colour map would not read as even.
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None]
    return _to_uint8(CAM_WEIGHT * colours + (1 - CAM_WEIGHT) * grey)


def overlay_labels(image: Pixels, labels: Labels) -> Pixels:
    """image (H, W, 3) uint8 RGB, labels (H, W) uint8 → (H, W, 3) uint8.

    Classes in their VOC colours, outlined in white with black outside, and numbered (the label value) where a
    number fits, so that neither class nor outline depends on colour alone. Background stays as it is.
    """
    colours = VOC_PALETTE[labels].astype(np.float32)
    weight = np.where(labels == 0, 0.0, LABEL_WEIGHT)[..., None]
    overlay = _to_uint8(weight * colours + (1 - weight) * image)
    classes = class_mask(labels)
    edge = _contour(labels, classes)
    # White on the class's side of its edge and black outside: visible on any colour.
    overlay[edge & classes] = 255
    overlay[edge & ~classes] = 0
    return _numbered(overlay, labels)


def fit_image(image: Pixels, side: int) -> Pixels:
    """image (H, W, 3) → longer side `side` when larger, enlarged by a whole factor up to `side` when smaller."""
    return np.asarray(Image.fromarray(image).resize(_fitted_size(image.shape, side), Image.Resampling.BICUBIC))


def fit_labels(labels: Labels, side: int) -> Labels:
    """labels (H, W) → the size `fit_image` gives an image of that size, by nearest value."""
    return np.asarray(Image.fromarray(labels).resize(_fitted_size(labels.shape, side), Image.Resampling.NEAREST))


def _fitted_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(H, W, …) → (width, height) as Pillow expects it."""
    longest = max(shape[:2])
    factor = side / longest if longest > side else side // longest  # whole, so that pixels of small images stay square
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def class_mask(labels: Labels) -> NDArray[np.bool_]:
    """labels (H, W) → where they are a class, neither background nor ignored."""
    mask: NDArray[np.bool_] = (labels > 0) & (labels != IGNORE)
    return mask


def deepest_point(area: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Row and column of the point of an area (H, W) that is farthest from its edge, and that distance in pixels."""
    depth = distance_transform_edt(np.pad(area, 1))[1:-1, 1:-1]  # the picture's border is an edge too
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column), float(depth[row, column])


def _contour(labels: Labels, classes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) on both sides of a change of label, where at least one side is a class."""
    edge = np.zeros(labels.shape, dtype=bool)
    across = (labels[:, 1:] != labels[:, :-1]) & (classes[:, 1:] | classes[:, :-1])
    down = (labels[1:] != labels[:-1]) & (classes[1:] | classes[:-1])
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
    for value in np.unique(labels[class_mask(labels)]):
        row, column, depth = deepest_point(labels == value)
        if depth >= MIN_NUMBER_DEPTH:
            position = (_inside(column, picture.width, size), _inside(row, picture.height, size))
            draw.text(position, str(value), font=font, anchor="mm", fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)


def _inside(position: int, extent: int, size: int) -> int:
    """`position` moved so that a number of height `size` is not cut by the border, where the picture is that large."""
    room = min(size, extent // 2)
    return min(max(position, room), extent - room)


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    result: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result
