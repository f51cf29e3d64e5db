"""Gaussian filtering of pixels by their features on the permutohedral lattice (Adams, Baek and Davis, 2010), as the dense CRF
of Krähenbühl and Koltun (2011) uses it: a pixel's values are spread on the d+1 corners of the simplex it lies in, blurred
along the d+1 axes of the lattice, and read back at the same corners (filtering.py). Here: which corners, by which weights.

Corners are told apart by a linear hash of their coordinates modulo 2^64. Linear, so a neighbour's hash is the corner's plus a
constant; two corners of one image that share one would be smoothed as one (odds below 1e-6 an image of ten million corners).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import RUN, compiled
from excel_core.kernels.filtering import filter_of

__all__ = ["Lattice", "build_lattice"]

FACTORS = np.array(  # of a corner's coordinates: the fractions of pi, e and the roots of 2, 3, 5, 7 in binary, made odd
    [0x243F6A8885A308D3, 0x37E151628AED2A6B, 0x6A09E667F3BCC909, 0x3B67AE8584CAA73B, 0x3C6EF372FE94F82B, 0x254FF53A5F1D36F1],
    dtype=np.int64,
)
SPREAD = np.int64(-7046029254386353131)  # 2^64 / golden ratio, as a signed number: brings a hash's differences to its top
NONE = np.int32(-1)
Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]  # without a sign, numba need not ask whether they count from the end


@dataclass(frozen=True)
class Lattice:
    """The lattice of N pixels: `corners` (N, d+1) uint32 into its M corners, `weights` (N, d+1), scaled so that filtering them
    is symmetric and of unit mass, `neighbours` (d+1, M, 2) uint32 along each axis, M where there is none, and `of_ones` (N,),
    what filtering makes of a picture of ones."""

    corners: Indices
    weights: Floats
    neighbours: Indices
    of_ones: Floats

    def add_filtered(self, values: Floats, factor: float, result: Floats, work: Floats) -> None:
        """Add `factor` x the filtered `values` (N, lanes) to `result` (N, lanes); `work`: 2 x `size(lanes)` floats or more."""
        lanes = values.shape[1]
        one, two = work[: 2 * self.size(lanes)].reshape(2, -1, lanes)
        filter_of(lanes)(values, self.corners, self.weights, self.neighbours, factor, result, one, two)

    def size(self, lanes: int) -> int:
        """Floats that hold a value a lane at every corner, and at the one that stands for none."""
        return lanes * (1 + int(self.neighbours.shape[1]))


def build_lattice(features: Floats) -> Lattice:
    """features (d, N), d 2 or 5, in units of the Gaussian's sigma → their Lattice."""
    corners, weights, hashes, table = _corners_of(np.ascontiguousarray(features, dtype=np.float32), FACTORS)
    lattice = Lattice(corners, weights, _neighbours_of(hashes, table, FACTORS, corners.shape[1]), np.zeros(0, np.float32))
    mass = _of_ones(lattice)
    weights *= (1 / np.sqrt(mass + np.float32(1e-20)))[:, None]
    return Lattice(corners, weights, lattice.neighbours, _of_ones(lattice))


def _of_ones(lattice: Lattice) -> Floats:
    ones = np.ones((len(lattice.corners), 1), np.float32)
    result = np.zeros_like(ones)
    lattice.add_filtered(ones, 1.0, result, np.empty(2 * lattice.size(1), np.float32))
    return result[:, 0]


@compiled
def _corners_of(features: Floats, factors: Any) -> tuple[Indices, Floats, Any, Any]:
    """Corners (N, D) and barycentric weights (N, D) of the simplices that the features lie in, the corners' hashes (M,), and
    the table from hashes to corners."""
    d, N = features.shape
    D = d + 1
    corners, weights = np.empty((N, D), np.uint32), np.empty((N, D), np.float32)
    hashes = np.empty(N * D, np.int64)  # of the corners found so far
    table = np.full(_power_of_two(N), NONE, np.int32)
    M = 0
    nearest, rank, part = np.empty((D, RUN), np.int32), np.empty((D, RUN), np.int32), np.empty((D, RUN), np.float32)
    code, found = np.empty((RUN, D), np.int64), np.empty((RUN, D), np.int32)
    for first in range(0, N, RUN):
        count = min(RUN, N - first)
        _place(features[:, first : first + count], nearest, rank, part)
        _weigh(rank, part, weights[first : first + count])
        _hash(nearest, rank, factors, code[:count])
        while len(table) <= 2 * (M + RUN * D):
            table = _larger(table, hashes, M)
        _look_up(table, hashes, code[:count], found)
        for x in range(count):
            for j in range(D):
                corner = found[x, j]  # as of before this run: whoever was there still is
                if corner == NONE or hashes[corner] != code[x, j]:
                    slot = _slot(table, hashes, code[x, j])
                    if table[slot] == NONE:
                        table[slot], hashes[M] = M, code[x, j]
                        M += 1
                    corner = table[slot]
                corners[first + x, j] = corner
    return corners, weights, hashes[:M].copy(), table


@compiled
def _place(features: Floats, nearest: Any, rank: Any, part: Floats) -> None:
    """Where features (d, n) lie on the plane whose d+1 coordinates sum to 0: the simplex' first corner `nearest` (D, RUN), how
    much further they are along each axis, `part` (D, RUN) in [0, 1) steps of the lattice but for a constant, and the axes'
    `rank` (D, RUN) by that, 0 the furthest."""
    d, n = features.shape
    D = d + 1
    total, excess = np.zeros(n, np.float32), np.zeros(n, np.int32)
    for i in range(d, -1, -1):
        row, coordinate = part[i], features[max(i - 1, 0)]
        # Scaled so that the lattice's own blur is that of a unit sigma; there is no coordinate 0.
        scale = np.float32(np.sqrt(2.0 / 3.0) * D / np.sqrt((i + 1.0) * i)) if i else np.float32(0)
        for x in range(n):
            step = coordinate[x] * scale
            row[x] = total[x] - np.float32(i) * step
            total[x] += step
    for i in range(D):  # the nearest point whose coordinates are multiples of D need not lie on the plane
        row, near, place = part[i], nearest[i], rank[i]
        for x in range(n):
            multiple = np.int32(np.rint(row[x] * np.float32(1 / D)))
            near[x], place[x] = multiple * D, 0
            row[x] -= np.float32(multiple * D)
            excess[x] += multiple
    for i in range(d):
        for j in range(i + 1, D):
            row, other, place, other_place = part[i], part[j], rank[i], rank[j]
            for x in range(n):
                behind = np.int32(row[x] < other[x])
                place[x] += behind
                other_place[x] += np.int32(1) - behind
    for i in range(D):
        row, near, place = part[i], nearest[i], rank[i]
        for x in range(n):
            moved = place[x] + excess[x]
            step = np.int32(D) * (np.int32(moved < 0) - np.int32(moved > d))
            place[x] = moved + step
            near[x] += step
            row[x] = (row[x] - np.float32(step)) * np.float32(1 / D)


@compiled
def _weigh(rank: Any, part: Floats, weights: Floats) -> None:
    """Barycentric `weights` (n, D): the differences of the parts in falling order."""
    n, D = weights.shape
    for x in range(n):
        weights[x] = 0
        weights[x, 0] = 1
        for i in range(D):
            behind = D - rank[i, x]
            weights[x, behind - 1] += part[i, x]
            weights[x, behind % D] -= part[i, x]


@compiled
def _hash(nearest: Any, rank: Any, factors: Any, code: Any) -> None:
    """Hashes `code` (n, D) of the simplices' corners."""
    n, D = code.shape
    d = D - 1
    start, ordered = np.zeros(n, np.int64), np.empty(D, np.int64)
    for i in range(d):
        near = nearest[i]
        for x in range(n):
            start[x] += factors[i] * near[x]
    for x in range(n):
        for i in range(D):
            ordered[rank[i, x]] = i
        code[x, 0] = start[x]
        for j in range(1, D):
            code[x, j] = code[x, j - 1] + _move(factors, ordered[D - j], d)


@compiled
def _move(factors: Any, axis: int, d: int) -> Any:
    """What a step to the neighbour along an axis adds to a hash: one up along all axes, but d down along that one."""
    return factors[:d].sum() - (0 if axis == d else (d + 1) * factors[axis])


@compiled
def _neighbours_of(hashes: Any, table: Any, factors: Any, D: int) -> Indices:
    """(D, M, 2) of the M corners."""
    M = len(hashes)
    neighbours = np.full((D, M, 2), M, np.uint32)
    wanted, found = np.empty((RUN, 1), np.int64), np.empty((RUN, 1), np.int32)
    for axis in range(D):
        move = _move(factors, axis, D - 1)
        for first in range(0, M, RUN):
            count = min(RUN, M - first)
            for x in range(count):
                wanted[x, 0] = hashes[first + x] - move
            _look_up(table, hashes, wanted[:count], found)
            for x in range(count):
                other = found[x, 0]
                if other != NONE and hashes[other] != wanted[x, 0]:
                    other = table[_slot(table, hashes, wanted[x, 0])]
                if other != NONE:
                    neighbours[axis, first + x, 0], neighbours[axis, other, 1] = other, first + x
    return neighbours


@compiled
def _look_up(table: Any, hashes: Any, code: Any, found: Any) -> None:
    """What the table has where each of the hashes `code` (n, D) would first be looked for: all at once, so that the processor
    fetches many."""
    n, D = code.shape
    last = len(table) - 1
    for x in range(n):
        for j in range(D):
            found[x, j] = table[((code[x, j] * SPREAD) >> 20) & last]


@compiled
def _slot(table: Any, hashes: Any, code: Any) -> Any:
    """Where in the table the corner of this hash is, or would be put."""
    last = len(table) - 1
    slot = ((code * SPREAD) >> 20) & last
    while table[slot] != NONE and hashes[table[slot]] != code:
        slot = (slot + 1) & last
    return slot


@compiled
def _larger(table: Any, hashes: Any, count: int) -> Any:
    """The first `count` corners in a table twice as large."""
    larger = np.full(2 * len(table), NONE, np.int32)
    for i in range(count):
        larger[_slot(larger, hashes, hashes[i])] = i
    return larger


@compiled
def _power_of_two(least: int) -> int:
    power = 1
    while power < least:
        power *= 2
    return power
