"""Gaussian filtering of pixels by their features on the permutohedral lattice (Adams, Baek and Davis, 2010), as the dense CRF
of Krähenbühl and Koltun (2011) uses it: a pixel's values are spread on the d+1 corners of the simplex it lies in, blurred
along the d+1 axes of the lattice, and read back at the same corners.

Corners are told apart by a linear hash of their coordinates modulo 2^64. Linear, so a neighbour's hash is the corner's plus a
constant; two corners of one image that share one would be smoothed as one (odds below 1e-6 an image of ten million corners).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import compiled

__all__ = ["LANES", "Lattice", "add_filtered", "build_lattice"]

LANES = 4  # labels that are filtered together: one vector register
FACTORS = np.array(  # of a corner's coordinates: the fractions of pi, e and the roots of 2, 3, 5, 7 in binary, made odd
    [0x243F6A8885A308D3, 0x37E151628AED2A6B, 0x6A09E667F3BCC909, 0x3B67AE8584CAA73B, 0x3C6EF372FE94F82B, 0x254FF53A5F1D36F1],
    dtype=np.int64,
)
SPREAD = np.int64(-7046029254386353131)  # 2^64 / golden ratio, as a signed number: brings a hash's differences to its top
Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


@dataclass(frozen=True)
class Lattice:
    """The lattice of N pixels: `corners` (N, d+1) int32 into its M corners, `weights` (N, d+1), scaled so that filtering them
    is symmetric and of unit mass, and `neighbours` (d+1, M, 2) int32 along each axis, M where there is none."""

    corners: Integers
    weights: Floats
    neighbours: Integers


def build_lattice(features: Floats) -> Lattice:
    """features (d, N), d ≤ 6, in units of the Gaussian's sigma → their Lattice."""
    corners, weights, neighbours = _corners_of(np.ascontiguousarray(features, dtype=np.float32), FACTORS)
    _normalise(corners, weights, neighbours)
    return Lattice(corners, weights, neighbours)


@compiled
def add_filtered(
    values: Floats,
    corners: Integers,
    weights: Floats,
    neighbours: Integers,
    factor: float,
    result: Floats,
    one: Floats,
    two: Floats,
) -> None:
    """Add `factor` x the filtered `values` (N, LANES) to `result` (N, LANES); `one`, `two`: (M+1, LANES) to work in."""
    N, D = corners.shape
    M = neighbours.shape[1]
    one[: M + 1] = 0
    two[M] = 0
    for pixel in range(N):
        for j in range(D):
            corner, weight = corners[pixel, j], weights[pixel, j]
            for lane in range(LANES):
                one[corner, lane] += weight * values[pixel, lane]
    for axis in range(D):
        for i in range(M):
            left, right = neighbours[axis, i, 0], neighbours[axis, i, 1]
            for lane in range(LANES):
                two[i, lane] = one[i, lane] + np.float32(0.5) * (one[left, lane] + one[right, lane])
        one, two = two, one
    scale = np.float32(factor / (1 + 2.0 ** (1 - D)))  # what the blur adds to a constant, once the weights are normalised
    for pixel in range(N):
        for j in range(D):
            corner, weight = corners[pixel, j], scale * weights[pixel, j]
            for lane in range(LANES):
                result[pixel, lane] += weight * one[corner, lane]


@compiled
def _normalise(corners: Integers, weights: Floats, neighbours: Integers) -> None:
    """Divide each pixel's weights by the square root of what the filter makes of a picture of ones."""
    N, D = corners.shape
    M = neighbours.shape[1]
    mass = np.zeros((N, LANES), np.float32)
    work = np.empty((2, M + 1, LANES), np.float32)
    add_filtered(np.ones((N, LANES), np.float32), corners, weights, neighbours, 1.0, mass, work[0], work[1])
    for pixel in range(N):
        share = np.float32(1) / np.sqrt(mass[pixel, 0] + np.float32(1e-20))
        for j in range(D):
            weights[pixel, j] *= share


@compiled
def _corners_of(features: Floats, factors: Any) -> tuple[Integers, Floats, Integers]:
    """Corners, barycentric weights and neighbours of the simplices that the features lie in."""
    d, N = features.shape
    D = d + 1
    corners, weights = np.empty((N, D), np.int32), np.empty((N, D), np.float32)
    hashes = np.empty(N * D, np.int64)  # of the corners found so far
    table = np.full(_power_of_two(N), -1, np.int32)
    M = 0
    scale = np.empty(d, np.float32)  # of the features, so that the lattice's own blur is that of a unit sigma
    for i in range(d):
        scale[i] = np.sqrt(2.0 / 3.0) * D / np.sqrt((i + 1.0) * (i + 2.0))
    place, nearest = np.empty(D, np.float32), np.empty(D, np.int32)
    rank, ranked, share = np.empty(D, np.int32), np.empty(D, np.int32), np.empty(D + 1, np.float32)
    step = factors[:d].sum()
    last, last_corner = np.zeros(D, np.int64), np.full(D, -1, np.int32)  # the pixel before often has the same corners
    for pixel in range(N):
        total = np.float32(0)  # the feature's place on the plane through the d+1 axes whose coordinates sum to 0
        for i in range(d, 0, -1):
            part = features[i - 1, pixel] * scale[i - 1]
            place[i] = total - np.float32(i) * part
            total += part
        place[0] = total
        excess = np.int32(0)  # the nearest point whose coordinates are multiples of D need not lie on the plane
        for i in range(D):
            multiple = np.int32(np.rint(place[i] / np.float32(D)))
            nearest[i], rank[i] = multiple * D, 0
            excess += multiple
        for i in range(d):
            for j in range(i + 1, D):
                if place[i] - nearest[i] < place[j] - nearest[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        for i in range(D):
            rank[i] += excess
            if rank[i] < 0:
                rank[i] += D
                nearest[i] += D
            elif rank[i] > d:
                rank[i] -= D
                nearest[i] -= D
        share[:] = 0
        code = np.int64(0)  # of the simplex' first corner, the nearest point itself
        for i in range(D):
            part = (place[i] - nearest[i]) / np.float32(D)
            share[d - rank[i]] += part
            share[D - rank[i]] -= part
            ranked[rank[i]] = i
            if i < d:
                code += factors[i] * nearest[i]
        share[0] += np.float32(1) + share[D]
        for j in range(D):
            if j:  # to the next corner: one up along all axes, but D down along the one that has come furthest
                axis = ranked[D - j]
                code += step if axis == d else step - D * factors[axis]
            if last_corner[j] < 0 or last[j] != code:
                if len(table) <= 2 * M:
                    table = _larger(table, hashes, M)
                slot = _slot(table, hashes, code)
                if table[slot] < 0:
                    table[slot], hashes[M] = M, code
                    M += 1
                last[j], last_corner[j] = code, table[slot]
            corners[pixel, j], weights[pixel, j] = last_corner[j], share[j]
    neighbours = np.full((D, M, 2), M, np.int32)
    for axis in range(D):
        along = -step if axis == d else D * factors[axis] - step
        for i in range(M):
            other = table[_slot(table, hashes, hashes[i] + along)]
            if other >= 0:
                neighbours[axis, i, 0], neighbours[axis, other, 1] = other, i
    return corners, weights, neighbours


@compiled
def _slot(table: Integers, hashes: Any, code: int) -> int:
    """Where in the table the corner of this hash is, or would be put."""
    last = len(table) - 1
    slot = int((code * SPREAD) >> 20) & last
    while table[slot] >= 0 and hashes[table[slot]] != code:
        slot = (slot + 1) & last
    return slot


@compiled
def _larger(table: Integers, hashes: Any, count: int) -> Integers:
    """The first `count` corners in a table twice as large."""
    larger = np.full(2 * len(table), -1, np.int32)
    for i in range(count):
        larger[_slot(larger, hashes, hashes[i])] = i
    return larger


@compiled
def _power_of_two(least: int) -> int:
    power = 1
    while power < least:
        power *= 2
    return power
