"""Gaussian filtering of pixels by their features on the permutohedral lattice (Adams, Baek and Davis, 2010), as the dense CRF
of Krähenbühl and Koltun (2011) uses it.

A pixel's values are spread on the d+1 corners of the simplex that the pixel lies in, blurred along the d+1 axes of the lattice,
and read back at the same corners.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import compiled
from excel_core.kernels.lattice_corners import find_corners

__all__ = ["Lattice", "build_lattice", "plain_lattice"]

Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]


@dataclass(frozen=True)
class Lattice:
    """The lattice of N pixels: `corners` (N, d+1) uint32 into its M corners; `weights` (N, d+1), scaled so that the filter is
    symmetric and of unit mass; `neighbours` (d+1, M, 2) uint32 of each corner along each axis, M where there is none; `of_ones`
    (N,), the filtered picture of ones."""

    corners: Indices
    weights: Floats
    neighbours: Indices
    of_ones: Floats

    def add_filtered(self, values: Floats, factor: float, result: Floats, work: Floats) -> None:
        """Add `factor` x the filtered `values` (N, lanes) to `result` (N, lanes); `work`: at least 2 x `size(lanes)` floats."""
        lanes = values.shape[1]
        grid, other_grid = work[: 2 * self.size(lanes)].reshape(2, -1, lanes)
        _filter_of(lanes)(values, self.corners, self.weights, self.neighbours, factor, result, grid, other_grid)

    def size(self, lanes: int) -> int:
        """Number of floats of a grid: `lanes` values for every corner, and for the one that stands for a missing neighbour."""
        return lanes * (1 + int(self.neighbours.shape[1]))

    def filtered_ones(self) -> Floats:
        """The filtered picture of ones, (N,)."""
        ones = np.ones((len(self.corners), 1), np.float32)
        result = np.zeros_like(ones)
        self.add_filtered(ones, 1.0, result, np.empty(2 * self.size(1), np.float32))
        return result[:, 0]

    def normalise(self, mass: Floats) -> None:
        """Make the filter symmetric and of unit mass; mass (N,): the picture of ones, filtered before."""
        # A pixel's weights enter when it spreads and when it reads, so dividing by the root of its mass on both sides is the
        # symmetric normalisation of the CRF.
        self.weights[:] *= (1 / np.sqrt(mass + np.float32(1e-20)))[:, None]


def build_lattice(features: Floats) -> Lattice:
    """features (d, N), d 2 or 5, in units of the Gaussian's sigma → their Lattice."""
    lattice = plain_lattice(features)
    assert lattice is not None
    lattice.normalise(lattice.filtered_ones())
    return replace(lattice, of_ones=lattice.filtered_ones())


def plain_lattice(features: Floats, max_corners: int | None = None) -> Lattice | None:
    """As `build_lattice`, before its filter is normalised. None where there are more than `max_corners` corners."""
    simplices = find_corners(np.ascontiguousarray(features, dtype=np.float32), max_corners)
    if simplices is None:
        return None
    return Lattice(simplices.corners, simplices.weights, simplices.neighbours, np.zeros(0, np.float32))


@lru_cache
def _filter_of(lanes: int) -> Callable[[Floats, Indices, Floats, Indices, float, Floats, Floats, Floats], None]:
    """The filter of `lanes` values per pixel, compiled for that number: it is the length of the vectors.

    Called with values (N, lanes), corners (N, D), D a multiple of 3, weights (N, D), neighbours (D, M, 2), a factor, the result
    (N, lanes) that factor x the filtered values are added to, and two grids (M+1, lanes) of work space.
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
            for j in range(0, D, 3):  # three corners at a time, so that sums stay in registers
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
        grid: Floats,
        blurred: Floats,
    ) -> None:
        D, M, _ = neighbours.shape
        spread(values, corners, weights, grid)
        blurred[M] = 0
        for axis in range(D):
            blur(grid, neighbours, axis, blurred)
            grid, blurred = blurred, grid
        scale = np.float32(factor / (1 + 2.0 ** (1 - D)))  # as in the CRF authors' own lattice
        read(grid, corners, weights, scale, result)

    return add_filtered
