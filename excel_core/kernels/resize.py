"""Bilinear resizing of a photo's pixels window by window, so that no enlarged or float copy of the whole photo is ever held.

Torch's own resizing needs the whole photo in float32. This is the same sum in the same order, with products fused as torch's
compiled loop for three channels fuses them, so that the values are torch's to the last bit where the processor fuses products.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import compiled

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
    result = np.empty((3, len(rows.first), len(columns.first)), np.float32)
    _resize(source, *rows, *columns, np.float32(divisor), result)
    return result


@compiled
def _resize(
    source: Any, y0: Any, y1: Any, top: Floats, bottom: Floats, x0: Any, x1: Any, left: Floats, right: Floats,
    divisor: Any, result: Floats,
) -> None:  # fmt: skip
    channels, n, m = result.shape
    for y in range(n):
        for x in range(m):
            a, b, c, d = top[y] * left[x], top[y] * right[x], bottom[y] * left[x], bottom[y] * right[x]
            for channel in range(channels):
                # A product of two float32 is exact in float64, so a sum there, rounded to float32, is a fused one.
                total = np.float32(np.float32(source[y0[y], x1[x], channel]) / divisor * b)
                total = np.float32(np.float64(np.float32(source[y0[y], x0[x], channel]) / divisor) * np.float64(a) + total)
                total = np.float32(np.float64(np.float32(source[y1[y], x0[x], channel]) / divisor) * np.float64(c) + total)
                total = np.float32(np.float64(np.float32(source[y1[y], x1[x], channel]) / divisor) * np.float64(d) + total)
                result[channel, y, x] = total
