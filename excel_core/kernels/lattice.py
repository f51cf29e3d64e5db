"""Gaussian filtering of pixels by their features on the permutohedral lattice (Adams, Baek and Davis, 2010), as the dense CRF
of Krähenbühl and Koltun (2011) uses it.

A pixel's values are spread on the d+1 corners of the simplex that the pixel lies in, blurred along the d+1 axes of the lattice,
and read back at the same corners (loops/filter.c).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call
from excel_core.kernels.lattice_corners import Corners, find_corners

__all__ = ["Lattice", "build_lattice", "plain_lattice"]

Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]
SLABS_AT_WORK = 13  # BUFFERS of loops/filter.c


@dataclass(frozen=True)
class Lattice:
    """The lattice of N pixels, whose M corners lie in slabs, and whose pixels in as many groups (loops/groups.c).

    order (N,) uint32: the pixels, group by group from `starts` (n+1,) uint32
    corners (N, d+1) int32 and weights (N, d+1): in that order; corners are in rows from the first of the group's slab, weights
        are scaled so that the filter is symmetric and of unit mass
    neighbours (d+1, M, 2) uint32: of each corner along each axis, M where there is none
    slabs (n+1,) uint32: where the slabs of corners begin, and the end
    of_ones (N,): the filtered picture of ones
    """

    starts: Indices
    order: Indices
    corners: NDArray[np.int32]
    weights: Floats
    neighbours: Indices
    slabs: Indices
    of_ones: Floats

    def filtered(self, values: Floats, factor: float, base: Floats, result: Floats | None = None) -> Floats:
        """`base` + `factor` x the filtered `values`, all (N, lanes) → result, which may be the base; None: a new array."""
        result = np.empty_like(base) if result is None else result
        D, M, _ = self.neighbours.shape
        lanes, groups = values.shape[1], len(self.slabs) - 1
        scale = 1 / (1 + 2.0 ** (1 - D))  # as in the CRF authors' own lattice
        work = np.empty((1 + SLABS_AT_WORK * int(np.diff(self.slabs).max(initial=0)), lanes), np.float32)
        pixels = (self.starts, self.order, self.corners, self.weights)
        call(
            "add_filtered",
            lanes,
            D,
            M,
            factor * scale,
            *pixels,
            self.neighbours,
            groups,
            self.slabs,
            values,
            base,
            result,
            work,
        )
        return result

    def filtered_ones(self) -> Floats:
        """The filtered picture of ones, (N,)."""
        ones = np.ones((len(self.order), 1), np.float32)
        return self.filtered(ones, 1.0, np.zeros_like(ones))[:, 0]

    def normalise(self, mass: Floats) -> None:
        """Make the filter symmetric and of unit mass; mass (N,): the picture of ones, filtered before."""
        # A pixel's weights enter when it spreads and when it reads, so dividing by the root of its mass on both sides is the
        # symmetric normalisation of the CRF.
        self.weights[:] *= (1 / np.sqrt(mass + np.float32(1e-20)))[self.order, None]


def build_lattice(features: Floats) -> Lattice:
    """features (d, N), d 2 or 5, in units of the Gaussian's sigma → their Lattice."""
    lattice = plain_lattice(features)
    assert lattice is not None
    lattice.normalise(lattice.filtered_ones())
    return replace(lattice, of_ones=lattice.filtered_ones())


def plain_lattice(features: Floats, max_corners: int | None = None) -> Lattice | None:
    """As `build_lattice`, before its filter is normalised. None where there are more than `max_corners` corners."""
    simplices = find_corners(features, max_corners)
    return None if simplices is None else _grouped(simplices)


def _grouped(simplices: Corners) -> Lattice:
    """Its pixels group by group."""
    (N, D), groups = simplices.corners.shape, len(simplices.slabs) - 1
    starts, order = np.empty(groups + 1, np.uint32), np.empty(N, np.uint32)
    corners, weights = np.empty((N, D), np.int32), np.empty_like(simplices.weights)
    pixels = (simplices.corners, simplices.weights, starts, order, corners, weights)
    if not call("group_pixels", D, N, groups, simplices.slabs, *pixels):
        raise MemoryError(f"no memory to group {N} pixels")
    return Lattice(starts, order, corners, weights, simplices.neighbours, simplices.slabs, np.zeros(0, np.float32))
