"""Mean-field inference of a dense CRF with Potts compatibilities over lattices of its pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import compiled
from excel_core.kernels.lattice import LANES, Lattice, add_filtered

__all__ = ["mean_field"]

Floats = NDArray[np.float32]
LOWEST = np.float32(-46)  # logit whose probability, 1e-20, is taken as 0: products of smaller ones are denormal, and slow
NEVER = 1e4  # energy of the labels that only fill up the last lanes


def mean_field(unary: Floats, terms: Sequence[tuple[Lattice, float]], iterations: int) -> Floats:
    """unary (K, N) energies; terms: lattices of the N pixels, each with its weight → label probabilities (K, N).

    Q <- softmax(-unary + sum of weight x the filtered Q), from Q = softmax(-unary), `iterations` times.
    """
    K, N = unary.shape
    blocks = -(-K // LANES)
    energies = np.full((blocks, LANES, N), NEVER, np.float32)
    energies.reshape(-1, N)[:K] = unary
    energies = np.ascontiguousarray(energies.transpose(0, 2, 1))
    most = 1 + max((lattice.neighbours.shape[1] for lattice, _ in terms), default=0)
    work = np.empty((2, most, LANES), np.float32)
    logits, now = np.empty_like(energies), np.empty_like(energies)
    np.negative(energies, out=logits)
    _softmax(logits, now)
    for _ in range(iterations):
        np.negative(energies, out=logits)
        for lattice, weight in terms:
            parts: tuple[Any, ...] = (lattice.corners, lattice.weights, lattice.neighbours)
            for values, result in zip(now, logits, strict=True):
                add_filtered(values, *parts, weight, result, work[0], work[1])
        _softmax(logits, now)
    return now.transpose(0, 2, 1).reshape(-1, N)[:K]


@compiled
def _softmax(logits: Floats, result: Floats) -> None:
    """logits (blocks, N, LANES) → `result`, a softmax over all labels of each of the N pixels."""
    blocks, N, _ = logits.shape
    for pixel in range(N):
        largest = logits[0, pixel, 0]
        for block in range(blocks):
            for lane in range(LANES):
                largest = max(largest, logits[block, pixel, lane])
        total = np.float32(0)
        for block in range(blocks):
            for lane in range(LANES):
                below = logits[block, pixel, lane] - largest
                value = np.exp(below) if below > LOWEST else np.float32(0)
                result[block, pixel, lane] = value
                total += value
        share = np.float32(1) / total
        for block in range(blocks):
            for lane in range(LANES):
                result[block, pixel, lane] *= share
