"""Which corners of the permutohedral lattice the pixels of an image have, by which weights, and which corners are neighbours
(loops/lattice.c)."""

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call

__all__ = ["Corners", "find_corners"]

Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]
NO_MEMORY = 1  # of find_corners in loops/lattice.c; another problem is features too far apart


@dataclass(frozen=True)
class Corners:
    """`corners` (N, D) uint32 of N pixels into the M corners of their lattice, barycentric `weights` (N, D), and `neighbours`
    (D, M, 2) uint32 of each corner along each axis, M where there is none. `slabs` (n+1,) uint32: where in the order of the
    corners each slab begins, and the end; most axes stay in a slab, and the two others lead to the next one."""

    corners: Indices
    weights: Floats
    neighbours: Indices
    slabs: Indices


def find_corners(features: Floats, max_corners: int | None = None) -> Corners | None:
    """features (d, N) float32, d 2 or 5, in units of the Gaussian's sigma → the Corners of the simplices that they lie in, D =
    d+1. None where there are more than `max_corners`. ValueError where features lie so far apart that they have no numbers."""
    D, N = len(features) + 1, features.shape[1]
    if D not in (3, 6):
        raise ValueError(f"a lattice is of 2 or 5 features, not {len(features)}")
    limit = D * N if max_corners is None else max_corners
    corners, weights = np.empty((N, D), np.uint32), np.empty((N, D), np.float32)
    problem = (ctypes.c_int64 * 1)()
    table = call("find_corners", D, N, np.ascontiguousarray(features, np.float32), limit, corners, weights, problem)
    if not table:
        if problem[0] == NO_MEMORY:
            raise MemoryError(f"no memory for the lattice of {N} pixels")
        raise ValueError("features reach too many sigmas for a lattice; raise the sigmas")
    try:
        M = call("count_corners", table)
        if limit < M:
            return None
        neighbours, slabs = np.empty((D, M, 2), np.uint32), np.empty(2 * M + 1, np.uint32)
        count = call("join_corners", table, D, neighbours, slabs)
    finally:
        call("forget_corners", table)
    return Corners(corners, weights, neighbours, slabs[: count + 1].copy())
