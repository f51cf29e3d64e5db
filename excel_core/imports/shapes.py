"""The pixels of shapes that labelling tools write. Each function checks what it is given and returns what draws it."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.coco_masks import pack, rle_of
from excel_core.datasets.run_lengths import Runs, inside
from excel_core.errors import DataError
from excel_core.exports.brush_runs import decode_brush
from excel_core.imports.annotated import Draw

__all__ = ["box_runs", "brush", "ellipse", "polygon"]


def polygon(points: Sequence[float]) -> Draw:
    """x, y, x, y … in pixels; rasterised as COCO's polygons are."""
    packed = pack([list(points)])

    def draw(height: int, width: int) -> NDArray[np.bool_]:
        rle = None if packed.problem else rle_of(packed, height, width)
        if rle is None:
            raise DataError(packed.problem or "a polygon that cannot be drawn")
        return inside(Runs(height, width, rle["counts"].decode("ascii")))

    return draw


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> Draw:
    """Centre and radii in pixels, turned clockwise by `degrees`. A pixel belongs to it where its centre does."""
    if not all(map(math.isfinite, (x, y, radius_x, radius_y, degrees))) or min(radius_x, radius_y) <= 0:
        raise DataError("an ellipse whose numbers are not finite, or whose radii are not above 0")

    def draw(height: int, width: int) -> NDArray[np.bool_]:
        rows, columns = np.mgrid[:height, :width] + 0.5
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        along = (columns - x) * cosine + (rows - y) * sine
        across = (rows - y) * cosine - (columns - x) * sine
        return np.asarray((along / radius_x) ** 2 + (across / radius_y) ** 2 <= 1)

    return draw


def box_runs(counts: Sequence[int], left: int, top: int, box_width: int, box_height: int) -> Draw:
    """Run lengths row by row inside a box of pixels, beginning with those outside the shape: CVAT's masks."""
    if min(left, top, box_width, box_height, *counts) < 0 or sum(counts) != box_width * box_height:
        raise DataError("a mask whose run lengths do not fill its box")

    def draw(height: int, width: int) -> NDArray[np.bool_]:
        if left + box_width > width or top + box_height > height:
            raise DataError("a mask that reaches out of its image")
        pixels = np.zeros((height, width), dtype=bool)
        box = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(box_height, box_width)
        pixels[top : top + box_height, left : left + box_width] = box
        return pixels

    return draw


def brush(content: object) -> Draw:
    """Label Studio's run lengths of a brush."""
    return lambda height, width: decode_brush(content, height, width)
