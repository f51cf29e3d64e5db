"""Gaussian filtering of pixels by their features on the permutohedral lattice (Adams, Baek and Davis, 2010), as the dense CRF
of Krähenbühl and Koltun (2011) uses it.

A pixel's values are spread on the d+1 corners of the simplex that the pixel lies in, blurred along the d+1 axes of the lattice,
and read back at the same corners (loops/filter.c).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call
from excel_core.kernels.lattice_corners import find_corners

__all__ = ["Lattice", "build_lattice", "plain_lattice"]

Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]
SLABS_AT_WORK = 8  # rows of as many slabs are held while a grid is blurred


@dataclass(frozen=True)
class Lattice:
    """The lattice of N pixels: `corners` (N, d+1) uint32 into its M corners; `weights` (N, d+1), scaled so that the filter is
    symmetric and of unit mass; `neighbours` (d+1, M, 2) uint32 of each corner along each axis, M where there is none; `slabs`
    (n+1,) uint32, where the slabs of corners begin; `of_ones` (N,), the filtered picture of ones. A grid is (M, lanes)."""

    corners: Indices
    weights: Floats
    neighbours: Indices
    slabs: Indices
    of_ones: Floats

    def add_filtered(self, values: Floats, factor: float, result: Floats) -> None:
        """Add `factor` x the filtered `values` (N, lanes) to `result` (N, lanes)."""
        (N, D), lanes = self.corners.shape, values.shape[1]
        grid, blurred = self.grid(lanes), np.empty((self.size, lanes), np.float32)
        call("spread", lanes, D, N, self.corners, self.weights, values, grid)
        self.blur(grid, blurred, self.work(lanes))
        call("read_back", lanes, D, N, factor * self.scale, self.corners, self.weights, blurred, result)

    @property
    def size(self) -> int:
        """Number of corners, M."""
        return int(self.neighbours.shape[1])

    @property
    def scale(self) -> float:
        """What values are multiplied by when they are read back, as in the CRF authors' own lattice."""
        return 1 / (1 + 2.0 ** (1 - self.corners.shape[1]))

    def grid(self, lanes: int) -> Floats:
        """Zeros to spread values on."""
        return np.zeros((self.size, lanes), np.float32)

    def work(self, lanes: int) -> Floats:
        """Space that `blur` works in."""
        longest = int(np.diff(self.slabs).max(initial=0))
        return np.empty((1 + SLABS_AT_WORK * longest, lanes), np.float32)

    def blur(self, grid: Floats, result: Floats, work: Floats) -> None:
        """Blur a grid along all axes → `result`; the grid is zeros then."""
        D, M, _ = self.neighbours.shape
        call("blur", grid.shape[1], D, M, self.neighbours, len(self.slabs) - 1, self.slabs, grid, result, work)

    def filtered_ones(self) -> Floats:
        """The filtered picture of ones, (N,)."""
        ones = np.ones((len(self.corners), 1), np.float32)
        result = np.zeros_like(ones)
        self.add_filtered(ones, 1.0, result)
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
    simplices = find_corners(features, max_corners)
    if simplices is None:
        return None
    return Lattice(simplices.corners, simplices.weights, simplices.neighbours, simplices.slabs, np.zeros(0, np.float32))
