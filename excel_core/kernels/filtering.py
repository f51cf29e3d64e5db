"""What a lattice's corners do with the values of its pixels: spread, blur, read (lattice.py says of what this is part)."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import compiled

__all__ = ["filter_of"]

Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]


@lru_cache
def filter_of(lanes: int) -> Callable[[Floats, Indices, Floats, Indices, float, Floats, Floats, Floats], None]:
    """The filter of that many values a pixel, compiled for them: their number is the length of its vectors, and time goes with
    it. Called with values (N, lanes), corners (N, D), D a multiple of 3, weights (N, D), neighbours (D, M, 2), a factor,
    the result (N, lanes) that factor x the filtered values are added to, and twice (M+1, lanes) to work in.
    """

    @compiled
    def spread(values: Floats, corners: Indices, weights: Floats, grid: Floats) -> None:
        N, D = corners.shape
        grid[:] = 0
        for pixel in range(N):
            for j in range(D):
                corner, weight = corners[pixel, j], weights[pixel, j]
                for lane in range(lanes):
                    grid[corner, lane] += weight * values[pixel, lane]

    @compiled
    def blur(grid: Floats, neighbours: Indices, axis: int, result: Floats) -> None:
        M = neighbours.shape[1]
        for i in range(M):
            left, right = neighbours[axis, i, 0], neighbours[axis, i, 1]
            for lane in range(lanes):
                result[i, lane] = grid[i, lane] + np.float32(0.5) * (grid[left, lane] + grid[right, lane])

    @compiled
    def read(grid: Floats, corners: Indices, weights: Floats, scale: float, result: Floats) -> None:
        N, D = corners.shape
        for pixel in range(N):
            for j in range(0, D, 3):  # three at a time: sums stay in registers
                one, two, three = grid[corners[pixel, j]], grid[corners[pixel, j + 1]], grid[corners[pixel, j + 2]]
                a, b, c = scale * weights[pixel, j], scale * weights[pixel, j + 1], scale * weights[pixel, j + 2]
                for lane in range(lanes):
                    result[pixel, lane] += a * one[lane] + b * two[lane] + c * three[lane]

    @compiled
    def add_filtered(
        values: Floats,
        corners: Indices,
        weights: Floats,
        neighbours: Indices,
        factor: float,
        result: Floats,
        one: Floats,
        two: Floats,
    ) -> None:
        D, M, _ = neighbours.shape
        spread(values, corners, weights, one)
        two[M] = 0
        for axis in range(D):
            blur(one, neighbours, axis, two)
            one, two = two, one
        scale = np.float32(factor / (1 + 2.0 ** (1 - D)))  # what the blur adds to a constant, once the weights are normalised
        read(one, corners, weights, scale, result)

    return add_filtered
