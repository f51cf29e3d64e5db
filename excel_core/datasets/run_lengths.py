"""COCO's run-length encoding of masks (RLE): runs of 0s and 1s in turn, down the columns, as numbers or as COCO's text.

Read by hand and checked, since pycocotools trusts every text.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Runs", "counts_of", "encode_mask", "inside", "read_runs", "runs_problem"]


@dataclass(frozen=True, slots=True)
class Runs:
    """Run lengths of a mask of this size; as numbers, or as COCO's text."""

    height: int
    width: int
    counts: "array[int] | str"  # quoted: Python 3.11 cannot subscript it


def read_runs(rle: dict[str, Any]) -> Runs | str:
    """A parsed RLE → its runs, or what is wrong with how it is written. Raises nothing."""
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        return "RLE without its size"
    if isinstance(counts, str):
        return Runs(size[0], size[1], counts)
    try:
        return Runs(size[0], size[1], array("q", counts or ()))
    except (TypeError, OverflowError):
        return "RLE whose counts are neither whole numbers nor text"


def runs_problem(runs: Runs, height: int, width: int) -> str:
    """What is wrong with the runs for an image of this size; "" for nothing."""
    if (runs.height, runs.width) != (height, width):
        return f"RLE of {runs.height} by {runs.width} in an image of {height} by {width} (height by width)"
    counts = counts_of(runs)
    if counts is None or any(count < 0 for count in counts) or sum(counts) != height * width:
        return "RLE whose runs do not fill its image"
    return ""


def inside(runs: Runs) -> NDArray[np.bool_]:
    """Where sound runs are 1, (height, width) bool. pycocotools' own decoder warns under NumPy 2."""
    counts = counts_of(runs)
    assert counts is not None
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(runs.width, runs.height).T


def encode_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask (H, W) → its RLE as plain data, counts as COCO's text."""
    from pycocotools import mask as pycoco

    rle = pycoco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def counts_of(runs: Runs) -> Sequence[int] | None:
    """Run lengths as numbers; None for a text that is not COCO's."""
    if not isinstance(runs.counts, str):
        return runs.counts
    counts: list[int] = []
    value = shift = 0
    for character in runs.counts:
        six_bits = ord(character) - 48  # five bits of a number, lowest first, and whether more follow
        if not 0 <= six_bits < 64 or shift > 30:
            return None
        value |= (six_bits & 31) << shift
        shift += 5
        if six_bits & 32:
            continue  # more of this number follows
        if six_bits & 16:  # the last five bits' highest is the sign
            value -= 1 << shift
        # From the fourth count on, COCO writes the difference to the count two before.
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts
