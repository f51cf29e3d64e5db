"""Which corners of the permutohedral lattice the pixels of an image have, by which weights, and which corners are neighbours.

A corner is identified by a linear hash of its coordinates modulo 2^64. Linear, so that a neighbour's hash is the corner's plus
a constant. Two corners of one image with the same hash would be smoothed as one; for ten million corners the odds are below
1e-6.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import CHUNK, compiled

__all__ = ["Corners", "find_corners"]

# Factors of a corner's coordinates in its hash: the fractions of pi, e and the roots of 2, 3, 5, 7 in binary, made odd.
FACTORS = np.array(
    [0x243F6A8885A308D3, 0x37E151628AED2A6B, 0x6A09E667F3BCC909, 0x3B67AE8584CAA73B, 0x3C6EF372FE94F82B, 0x254FF53A5F1D36F1],
    dtype=np.int64,
)
# 2^64 / golden ratio, as a signed number: multiplying by it brings a hash's differences to its top bits (Fibonacci hashing).
SPREAD = np.int64(-7046029254386353131)
EMPTY = np.int32(-1)  # slot of the table without a corner
Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]  # unsigned, so that numba does not check for indices that count from the end


@dataclass(frozen=True)
class Corners:
    """`corners` (N, D) uint32 of N pixels into the M corners of their lattice, barycentric `weights` (N, D), and `neighbours`
    (D, M, 2) uint32 of each corner along each axis, M where there is none."""

    corners: Indices
    weights: Floats
    neighbours: Indices


def find_corners(features: Floats, max_corners: int | None = None) -> Corners | None:
    """features (d, N) float32, in units of the Gaussian's sigma → the Corners of the simplices that they lie in, D = d+1. None
    where there are more than `max_corners`."""
    all_corners = (features.shape[0] + 1) * features.shape[1]
    limit = all_corners if max_corners is None else min(max_corners, all_corners)
    corners, weights, hashes, table = _corners_of(features, FACTORS, limit)
    if len(hashes) > limit:
        return None
    return Corners(corners, weights, _neighbours_of(hashes, table, FACTORS, corners.shape[1]))


@compiled
def _corners_of(features: Floats, factors: Any, limit: int) -> tuple[Indices, Floats, Any, Any]:
    """Corners (N, D) and weights (N, D) of Corners, the corners' hashes (M,), and the table from hashes to corners. It ends
    early where there are more than `limit` corners."""
    d, N = features.shape
    D = d + 1
    corners, weights = np.empty((N, D), np.uint32), np.empty((N, D), np.float32)
    hashes = np.empty(limit + CHUNK * D, np.int64)  # of the corners found so far
    table = np.full(_power_of_two(N), EMPTY, np.int32)
    M = 0
    nearest, rank, part = np.empty((D, CHUNK), np.int32), np.empty((D, CHUNK), np.int32), np.empty((D, CHUNK), np.float32)
    codes, known = np.empty((CHUNK, D), np.int64), np.empty((CHUNK, D), np.int32)
    for first in range(0, N, CHUNK):
        if limit < M:
            break
        count = min(CHUNK, N - first)
        _place(features[:, first : first + count], nearest, rank, part)
        _weigh(rank, part, weights[first : first + count])
        _hash(nearest, rank, factors, codes[:count])
        while len(table) <= 2 * (M + CHUNK * D):
            table = _larger(table, hashes, M)
        # Most corners are known from pixels before: look them up all at once, then add the others one by one.
        _look_up(table, codes[:count], known)
        for x in range(count):
            for j in range(D):
                corner = known[x, j]
                if corner == EMPTY or hashes[corner] != codes[x, j]:
                    slot = _slot(table, hashes, codes[x, j])
                    if table[slot] == EMPTY:
                        table[slot], hashes[M] = M, codes[x, j]
                        M += 1
                    corner = table[slot]
                corners[first + x, j] = corner
    return corners, weights, hashes[:M].copy(), table


@compiled
def _place(features: Floats, nearest: Any, rank: Any, part: Floats) -> None:
    """Place features (d, n) on the plane whose d+1 coordinates sum to 0.

    Writes `nearest` (D, CHUNK), the first corner of the simplex; `part` (D, CHUNK), the distance from it along each axis in
    steps of the lattice, in [0, 1) but for a constant; and `rank` (D, CHUNK) of the axes by that distance, 0 the furthest.
    """
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
        row, near, ranks = part[i], nearest[i], rank[i]
        for x in range(n):
            multiple = np.int32(np.rint(row[x] * np.float32(1 / D)))
            near[x], ranks[x] = multiple * D, 0
            row[x] -= np.float32(multiple * D)
            excess[x] += multiple
    for i in range(d):
        for j in range(i + 1, D):
            row, other, ranks, other_ranks = part[i], part[j], rank[i], rank[j]
            for x in range(n):
                behind = np.int32(row[x] < other[x])
                ranks[x] += behind
                other_ranks[x] += np.int32(1) - behind
    for i in range(D):  # move it back onto the plane, along the axes where that costs least
        row, near, ranks = part[i], nearest[i], rank[i]
        for x in range(n):
            moved = ranks[x] + excess[x]
            step = np.int32(D) * (np.int32(moved < 0) - np.int32(moved > d))
            ranks[x] = moved + step
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
    """The change of a hash from a corner to its neighbour along `axis`: one up along all axes, but d down along that one."""
    return factors[:d].sum() - (0 if axis == d else (d + 1) * factors[axis])


@compiled
def _neighbours_of(hashes: Any, table: Any, factors: Any, D: int) -> Indices:
    """(D, M, 2) of the M corners."""
    M = len(hashes)
    neighbours = np.full((D, M, 2), M, np.uint32)
    codes, known = np.empty((CHUNK, 1), np.int64), np.empty((CHUNK, 1), np.int32)
    for axis in range(D):
        move = _move(factors, axis, D - 1)
        for first in range(0, M, CHUNK):
            count = min(CHUNK, M - first)
            for x in range(count):
                codes[x, 0] = hashes[first + x] - move
            _look_up(table, codes[:count], known)
            for x in range(count):
                other = known[x, 0]
                if other != EMPTY and hashes[other] != codes[x, 0]:
                    other = table[_slot(table, hashes, codes[x, 0])]
                if other != EMPTY:
                    neighbours[axis, first + x, 0], neighbours[axis, other, 1] = other, first + x
    return neighbours


@compiled
def _look_up(table: Any, codes: Any, corners: Any) -> None:
    """Write to `corners` (n, D) what the table holds in the first slot of each of the hashes `codes` (n, D). All at once, so
    that the processor fetches many slots at the same time."""
    n, D = codes.shape
    last = len(table) - 1
    for x in range(n):
        for j in range(D):
            corners[x, j] = table[((codes[x, j] * SPREAD) >> 20) & last]


@compiled
def _slot(table: Any, hashes: Any, code: Any) -> Any:
    """The slot of the table that holds the corner with this hash, or the empty one that it belongs in: linear probing."""
    last = len(table) - 1
    slot = ((code * SPREAD) >> 20) & last
    while table[slot] != EMPTY and hashes[table[slot]] != code:
        slot = (slot + 1) & last
    return slot


@compiled
def _larger(table: Any, hashes: Any, count: int) -> Any:
    """The first `count` corners in a table twice as large."""
    larger = np.full(2 * len(table), EMPTY, np.int32)
    for i in range(count):
        larger[_slot(larger, hashes, hashes[i])] = i
    return larger


@compiled
def _power_of_two(minimum: int) -> int:
    power = 1
    while power < minimum:
        power *= 2
    return power
