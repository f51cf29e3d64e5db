"""COCO segmentations: kept small, checked, and painted into one semantic mask an image (method 6)."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Packed", "Region", "Runs", "pack", "paint", "problem_of", "rle_of"]

FAR = 1e5  # pixels; rasterising walks along edges, so that a wild coordinate would take for ever
POINTS = 3  # of a polygon, at least


@dataclass(frozen=True, slots=True)
class Runs:
    """Run lengths of 0s and 1s in turn, down the columns, of a mask of this size; as numbers, or as COCO's text."""

    height: int
    width: int
    counts: "array[int] | str"  # quoted: Python 3.11 cannot subscript it


@dataclass(frozen=True, slots=True)
class Packed:
    """A segmentation as it is kept: polygons (float64 x, y, x, y … in pixels, as bytes) or runs, as far as they are sound,
    and what is wrong with the rest."""

    shape: tuple[bytes, ...] | Runs = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Region:
    """An annotation of an image: its number, the label of its pixels, whether it is a crowd, and its segmentation."""

    number: int
    label: int
    crowd: bool
    packed: Packed


def pack(segmentation: Any) -> Packed:
    """A parsed segmentation (list of polygons, or RLE) → what is sound of it. Raises nothing."""
    if isinstance(segmentation, dict):
        return _pack_runs(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return Packed(problem="no segmentation" if not segmentation else "a segmentation that is neither polygons nor RLE")
    sound, problems = [], []
    for polygon in segmentation:
        problem = _polygon_problem(polygon)
        if problem:
            problems.append(problem)
        else:
            sound.append(array("d", polygon).tobytes())
    return Packed(tuple(sound), ", ".join(dict.fromkeys(problems)))


def problem_of(packed: Packed, height: int, width: int) -> str:
    """What is wrong with a segmentation of an image of this size; "" for nothing."""
    runs = packed.shape
    if packed.problem or not isinstance(runs, Runs):
        return packed.problem
    if (runs.height, runs.width) != (height, width):
        return f"RLE of {runs.height} by {runs.width} in an image of {height} by {width} (height by width)"
    counts = _counts(runs)
    if counts is None or any(count < 0 for count in counts) or sum(counts) != height * width:
        return "RLE whose runs do not fill its image"
    return ""


def rle_of(packed: Packed, height: int, width: int) -> dict[str, Any] | None:
    """A segmentation rasterised: COCO's compressed RLE; None where nothing of it is sound."""
    from pycocotools import mask as pycoco  # needed for masks alone: labels are read without

    if isinstance(packed.shape, Runs):
        if problem_of(packed, height, width):
            return None
        plain = {"size": [height, width], "counts": list(_counts(packed.shape) or ())}
        return dict(pycoco.frPyObjects(plain, height, width))
    polygons = [np.frombuffer(polygon).tolist() for polygon in packed.shape]
    return dict(pycoco.merge(pycoco.frPyObjects(polygons, height, width))) if polygons else None


def paint(regions: Sequence[Region], height: int, width: int) -> NDArray[np.uint8]:
    """Regions → their labels (height, width) uint8, 0 elsewhere; crowds lie below, and smaller regions above larger ones."""
    from pycocotools import mask as pycoco

    drawn = [(region, rle) for region in regions if (rle := rle_of(region.packed, height, width)) is not None]
    drawn.sort(key=lambda pair: (not pair[0].crowd, -int(pycoco.area(pair[1])), pair[0].number))
    mask = np.zeros((height, width), dtype=np.uint8)
    for region, rle in drawn:
        mask[_inside(rle)] = region.label
    return mask


def _inside(rle: dict[str, Any]) -> NDArray[np.bool_]:
    """Where a compressed RLE of pycocotools is 1, (height, width) bool; its own decoder warns under NumPy 2."""
    height, width = rle["size"]
    counts = _counts(Runs(height, width, rle["counts"].decode("ascii")))
    assert counts is not None
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _polygon_problem(polygon: Any) -> str:
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {float, int}:
        return "a polygon that is no list of numbers"
    if len(polygon) % 2:
        return "a polygon with an x without a y"
    if len(polygon) < 2 * POINTS:
        return f"a polygon of fewer than {POINTS} points"
    if not all(-FAR <= value <= FAR for value in polygon):  # NaN is not
        return "a polygon with a coordinate that is not finite or far outside"
    return ""


def _pack_runs(rle: dict[str, Any]) -> Packed:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        return Packed(problem="RLE without its size")
    if isinstance(counts, str):
        return Packed(Runs(size[0], size[1], counts))
    try:
        return Packed(Runs(size[0], size[1], array("q", counts or ())))
    except (TypeError, OverflowError):
        return Packed(problem="RLE whose counts are neither whole numbers nor text")


def _counts(runs: Runs) -> Sequence[int] | None:
    """Run lengths as numbers; None where a text is none of COCO's. Decoded here: pycocotools trusts every text."""
    if not isinstance(runs.counts, str):
        return runs.counts
    counts: list[int] = []
    value = shift = 0
    for sign in runs.counts:
        six = ord(sign) - 48  # five bits of a number, lowest first, and whether more follow
        if not 0 <= six < 64 or shift > 30:
            return None
        value |= (six & 31) << shift
        shift += 5
        if not six & 32:
            if six & 16:  # the last five bits' highest is the sign
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))  # from the fourth on, the change from two before
            value = shift = 0
    return None if shift else counts
