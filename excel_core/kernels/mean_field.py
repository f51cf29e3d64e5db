"""Mean-field inference of a dense CRF with Potts compatibilities over lattices of its pixels (Krähenbühl and Koltun, 2011).

A pixel's probabilities sum to 1 and filtering is linear. So the first label is never filtered: it gets what filtering makes of
ones, less what the other labels get.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels import CHUNK, compiled
from excel_core.kernels.exponential import exponential
from excel_core.kernels.lattice import Lattice

__all__ = ["MAX_LANES", "mean_field", "softmax_of"]

Floats = NDArray[np.float32]
MAX_LANES = 4  # labels that are filtered side by side, as the lanes of a vector
BELOW_LOGITS = np.float32(-1e30)  # lower than any logit


def mean_field(unary: Floats, terms: Sequence[tuple[Lattice, float]], iterations: int) -> Floats:
    """unary (K, N) energies, K ≥ 2; terms: lattices of the N pixels, each with its weight → label probabilities (K, N).

    Q <- softmax(-unary + sum of weight x the filtered Q), from Q = softmax(-unary), `iterations` times.
    """
    K, N = unary.shape
    # All labels but the first, in blocks of lanes; the last block may have lanes to spare.
    lanes = min(K - 1, MAX_LANES)
    blocks = -(-(K - 1) // lanes)
    start = np.zeros((blocks * lanes, N), np.float32)
    np.negative(unary[1:], out=start[: K - 1])
    start = np.ascontiguousarray(start.reshape(blocks, lanes, N).transpose(0, 2, 1))
    logits, others, first = start.copy(), np.zeros_like(start), np.empty(N, np.float32)  # `others`, `first`: probabilities
    logit_sums = -unary.sum(axis=0)
    work = np.empty(2 * max((lattice.size(lanes) for lattice, _ in terms), default=0), np.float32)
    softmax = softmax_of(lanes)
    softmax(logits, logit_sums, K - 1, others, first)
    for lattice, weight in terms:
        logit_sums += weight * lattice.of_ones  # in every iteration, the filtered Q of all labels sum to this
    for _ in range(iterations):
        np.copyto(logits, start)
        for lattice, weight in terms:
            for values, result in zip(others, logits, strict=True):
                lattice.add_filtered(values, weight, result, work)
        softmax(logits, logit_sums, K - 1, others, first)
    return np.concatenate([first[None], others.transpose(0, 2, 1).reshape(-1, N)[: K - 1]])


@lru_cache
def softmax_of(lanes: int) -> Callable[[Floats, Floats, int, Floats, Floats], None]:
    """A compiled function: logits (blocks, N, lanes) of all `others` labels but the first, and the sums (N,) of all labels'
    logits → probabilities `result` (blocks, N, lanes) of the others and `first` (N,) of the first, whose logit is the rest of
    the sum."""

    @compiled
    def softmax(logits: Floats, sums: Floats, others: int, result: Floats, first: Floats) -> None:
        N = len(sums)
        largest, total = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
        for start in range(0, N, CHUNK):
            n = min(CHUNK, N - start)
            lead = first[start : start + n]  # logit, then probability, of the first label
            for x in range(n):
                lead[x], largest[x] = sums[start + x], BELOW_LOGITS
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
                probabilities = result[label // lanes, start : start + n].reshape(-1)
                for x in range(n):
                    probabilities[lanes * x + lane] = exponential(row[lanes * x + lane] - largest[x])
                    total[x] += probabilities[lanes * x + lane]
            for x in range(n):
                total[x] = np.float32(1) / total[x]
                lead[x] *= total[x]
            for label in range(others):
                probabilities, lane = result[label // lanes, start : start + n].reshape(-1), label % lanes
                for x in range(n):
                    probabilities[lanes * x + lane] *= total[x]

    return softmax
