"""Pixel-adaptive refinement of one image on the CPU (method 4): affinities of pixels to their neighbours, and a diffusion step.

Images and maps are padded by `reach` (R) pixels on all four sides, so that every neighbour exists. Rows are computed one by
one, neighbour by neighbour, along x. So the values of a row stay in the cache, and the inner loops are vector code.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import compiled
from excel_core.kernels.exponential import exponential

__all__ = ["affinities", "diffuse"]

Array = NDArray[np.float32]


@compiled
def affinities(
    padded: Array, offsets: Any, reach: int, width: float, position: Array, result: Array, first: int, last: int
) -> None:
    """padded image (3, H+2R, W+2R), offsets (n, 2) int64 as dy, dx, position (n,) → rows first to last-1 of `result` (H, n, W):
    softmax_n(-mean_ch (|I_n - I| / (std_n I + 1e-8) / width)^2) + position, with the unbiased std over the n neighbours."""
    channels = padded.shape[0]
    n, W = result.shape[1:]
    mean, factor = np.empty(W, np.float32), np.empty(W, np.float32)
    share, unbiased = np.float32(1 / n), np.float32(1 / (n - 1))
    # The root of the number of channels turns the sum over channels into their mean.
    unit, tiny = np.float32(width * np.sqrt(channels)), np.float32(1e-8)
    for y in range(first, last):
        result[y] = 0
        for c in range(channels):
            mean[:] = 0
            factor[:] = 0
            for i in range(n):
                row = padded[c, y + reach + offsets[i, 0], reach + offsets[i, 1] :]
                for x in range(W):
                    mean[x] += row[x] * share
            for i in range(n):
                row = padded[c, y + reach + offsets[i, 0], reach + offsets[i, 1] :]
                for x in range(W):
                    off_mean = row[x] - mean[x]
                    factor[x] += off_mean * off_mean
            for x in range(W):
                factor[x] = np.float32(1) / ((np.sqrt(factor[x] * unbiased) + tiny) * unit)
            centre = padded[c, y + reach, reach:]
            for i in range(n):
                row = padded[c, y + reach + offsets[i, 0], reach + offsets[i, 1] :]
                distance = result[y, i]
                for x in range(W):
                    step = (row[x] - centre[x]) * factor[x]
                    distance[x] -= step * step
        _softmax(result[y], position, mean, factor)


@compiled
def _softmax(logits: Array, offset: Array, highest: Array, total: Array) -> None:
    """logits (n, W) → their softmax over n, plus offset (n,), in place; highest and total (W,) are work space."""
    n, W = logits.shape
    for x in range(W):
        highest[x], total[x] = logits[0, x], 0
    for i in range(1, n):
        for x in range(W):
            highest[x] = max(highest[x], logits[i, x])
    for i in range(n):
        for x in range(W):
            logits[i, x] = exponential(logits[i, x] - highest[x])
            total[x] += logits[i, x]
    for i in range(n):
        for x in range(W):
            logits[i, x] = logits[i, x] / total[x] + offset[i]


@compiled
def diffuse(maps: Array, affinity: Array, dilations: Any, reach: int, result: Array, first: int, last: int) -> None:
    """maps (K, H+2R, W+2R), affinity (H, 8·dilations, W) in the order of cams/par.py's NEIGHBOURS → rows first to last-1 of
    `result`, padded as `maps` is: each pixel is the sum of its neighbours, weighted by affinity."""
    K = maps.shape[0]
    H, _, W = affinity.shape
    total = np.empty((K, W), np.float32)
    for y in range(first, last):
        total[:] = 0
        for i in range(len(dilations)):
            d = dilations[i]
            for k in range(K):
                picture, row = maps[k], total[k]
                for j in range(3):  # above, beside, below
                    across = picture[y + reach + (j - 1) * d]
                    left, middle, right = across[reach - d :], across[reach:], across[reach + d :]
                    if j == 1:
                        p, q = affinity[y, 8 * i + 3], affinity[y, 8 * i + 4]
                        for x in range(W):
                            row[x] += p[x] * left[x] + q[x] * right[x]
                    else:
                        n = 8 * i + (5 if j else 0)
                        p, q, r = affinity[y, n], affinity[y, n + 1], affinity[y, n + 2]
                        for x in range(W):
                            row[x] += p[x] * left[x] + q[x] * middle[x] + r[x] * right[x]
        # Write the row with its padding. The first and last row are repeated as the padding above and below.
        padded_y = y + reach
        for k in range(K):
            row, padded = total[k], result[k, padded_y]
            for x in range(W):
                padded[reach + x] = row[x]
            padded[:reach] = row[0]
            padded[reach + W :] = row[W - 1]
            for beside in range(reach * (y == 0)):
                _copy(padded, result[k, beside])
            for beside in range(reach * (y == H - 1)):
                _copy(padded, result[k, padded_y + 1 + beside])


@compiled
def _copy(row: Array, result: Array) -> None:
    for x in range(len(row)):
        result[x] = row[x]
