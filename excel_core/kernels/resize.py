"""Bilinear resizing of a photo's pixels window by window, so that no enlarged or float copy of the whole photo is ever held.

Torch's own resizing needs the whole photo in float32. This is the same sum in the same order, with products fused as torch's
compiled loop for three channels fuses them, so that the values are torch's to the last bit where the processor fuses products.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call

__all__ = ["Axis", "axis_of", "resized_window"]

Floats = NDArray[np.float32]


class Axis(NamedTuple):
    """Along one axis, for each of n output pixels: the two source pixels it lies between and their weights, (n,) each."""

    first: Any
    second: Any
    first_weight: Floats
    second_weight: Floats

    def part(self, window: slice) -> "Axis":
        """Those of the output pixels in `window`."""
        return Axis(*(values[window] for values in self))


def axis_of(source: int, output: int, align_corners: bool) -> Axis:
    """`source` pixels resized to `output`: with the corners' centres aligned, or half-pixel centres."""
    places = np.arange(output, dtype=np.float32)
    if align_corners:
        centres = np.float32(np.float32(source - 1) / np.float32(output - 1) if output > 1 else 0) * places
    else:
        scale = np.float32(source) / np.float32(output)
        exact = np.float64(scale) * (places + np.float32(0.5)) - 0.5  # fused, so rounded once
        centres = np.maximum(exact.astype(np.float32), np.float32(0))
    first = np.minimum(centres.astype(np.int64), source - 1)
    second_weight = np.clip(centres - first.astype(np.float32), 0, 1).astype(np.float32)
    return Axis(first, np.minimum(first + 1, source - 1), np.float32(1) - second_weight, second_weight)


def resized_window(source: NDArray[Any], rows: Axis, columns: Axis, divisor: float = 1.0) -> Floats:
    """source (h, w, 3), uint8 or float32, divided by `divisor` → the output pixels of `rows` and `columns`, (3, n, m)."""
    n, m = len(rows.first), len(columns.first)
    resized = np.empty((3, n, m), np.float32)
    along_axes = (np.ascontiguousarray(values) for values in (*rows, *columns))
    source = np.ascontiguousarray(source)
    call("resize", int(source.dtype == np.uint8), source.shape[1], n, m, source, *along_axes, float(divisor), resized)
    return resized
