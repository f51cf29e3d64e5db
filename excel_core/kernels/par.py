"""Pixel-adaptive refinement of one image on the CPU (method 4), by loops/par.c: affinities of pixels to their neighbours, and a
diffusion step.

Images and maps are padded by `reach` (R) pixels on all four sides, so that every neighbour exists. Each function computes rows
first to last-1, so that threads share an image.
"""

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call

__all__ = ["affinities", "diffuse"]

Array = NDArray[np.float32]
Whole = NDArray[np.int64]


def affinities(
    padded: Array, offsets: Whole, reach: int, width: float, position: Array, result: Array, first: int, last: int
) -> None:
    """padded image (C, H+2R, W+2R), offsets (n, 2) as dy, dx, position (n,) → rows first to last-1 of `result` (H, n, W):
    softmax_n(-mean_ch (|I_n - I| / (std_n I + 1e-8) / width)^2) + position, with the unbiased std over the n neighbours."""
    H, n, W = result.shape
    work = np.empty((2, W), np.float32)
    call("affinities", len(padded), H, W, n, reach, padded, offsets, width, position, result, work, first, last)


def diffuse(maps: Array, affinity: Array, dilations: Whole, reach: int, result: Array, first: int, last: int) -> None:
    """maps (K, H+2R, W+2R), affinity (H, 8·dilations, W) in the order of cams/par.py's NEIGHBOURS → rows first to last-1 of
    `result`, padded as `maps` is: each pixel is the sum of its neighbours, weighted by affinity."""
    H, _, W = affinity.shape
    call("diffuse", len(maps), H, W, len(dilations), reach, maps, affinity, dilations, result, first, last)
