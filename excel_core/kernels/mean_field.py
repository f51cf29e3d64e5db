"""Mean-field inference of a dense CRF with Potts compatibilities over lattices of its pixels.

A pixel's probabilities sum to 1 and filtering is linear, so one label need not be filtered: what it gets is what filtering
makes of ones, less what the others get.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import RUN, compiled
from excel_core.kernels.exponential import exponential
from excel_core.kernels.lattice import Lattice

__all__ = ["mean_field"]

Floats = NDArray[np.float32]
MOST = 4  # lanes: labels that are filtered side by side
LOWEST = np.float32(-1e30)  # than any logit


def mean_field(unary: Floats, terms: Sequence[tuple[Lattice, float]], iterations: int) -> Floats:
    """unary (K, N) energies, K ≥ 2; terms: lattices of the N pixels, each with its weight → label probabilities (K, N).

    Q <- softmax(-unary + sum of weight x the filtered Q), from Q = softmax(-unary), `iterations` times.
    """
    K, N = unary.shape
    lanes = min(K - 1, MOST)  # of all labels but the first; the last block may have some to spare
    blocks = -(-(K - 1) // lanes)
    start = np.zeros((blocks * lanes, N), np.float32)
    np.negative(unary[1:], out=start[: K - 1])
    start = np.ascontiguousarray(start.reshape(blocks, lanes, N).transpose(0, 2, 1))
    logits, now, first = start.copy(), np.zeros_like(start), np.empty(N, np.float32)
    all_labels = -unary.sum(axis=0)
    work = np.empty(2 * max((lattice.size(lanes) for lattice, _ in terms), default=0), np.float32)
    softmax = softmax_of(lanes)
    softmax(logits, all_labels, K - 1, now, first)
    for lattice, weight in terms:
        all_labels += weight * lattice.of_ones
    for _ in range(iterations):
        np.copyto(logits, start)
        for lattice, weight in terms:
            for values, result in zip(now, logits, strict=True):
                lattice.add_filtered(values, weight, result, work)
        softmax(logits, all_labels, K - 1, now, first)
    return np.concatenate([first[None], now.transpose(0, 2, 1).reshape(-1, N)[: K - 1]])


@lru_cache
def softmax_of(lanes: int) -> Callable[[Floats, Floats, int, Floats, Floats], None]:
    """Compiled: logits (blocks, N, lanes) of `others` labels and the sums (N,) of all labels' logits → probabilities
    `result` (blocks, N, lanes) of the others, and `first` (N,) of the first label, whose logit is what is left of the sum."""

    @compiled
    def softmax(logits: Floats, sums: Floats, others: int, result: Floats, first: Floats) -> None:
        N = len(sums)
        largest, total = np.empty(RUN, np.float32), np.empty(RUN, np.float32)
        for start in range(0, N, RUN):
            n = min(RUN, N - start)
            lead = first[start : start + n]
            for x in range(n):
                lead[x], largest[x] = sums[start + x], LOWEST
            for label in range(others):
                row, lane = logits[label // lanes, start : start + n].reshape(-1), label % lanes
                for x in range(n):
                    lead[x] -= row[lanes * x + lane]
                    largest[x] = max(largest[x], row[lanes * x + lane])
            for x in range(n):
                largest[x] = max(largest[x], lead[x])
                lead[x] = exponential(lead[x] - largest[x])
                total[x] = lead[x]
            for label in range(others):
                row, lane = logits[label // lanes, start : start + n].reshape(-1), label % lanes
                likely = result[label // lanes, start : start + n].reshape(-1)
                for x in range(n):
                    likely[lanes * x + lane] = exponential(row[lanes * x + lane] - largest[x])
                    total[x] += likely[lanes * x + lane]
            for x in range(n):
                total[x] = np.float32(1) / total[x]
                lead[x] *= total[x]
            for label in range(others):
                likely, lane = result[label // lanes, start : start + n].reshape(-1), label % lanes
                for x in range(n):
                    likely[lanes * x + lane] *= total[x]

    return softmax
