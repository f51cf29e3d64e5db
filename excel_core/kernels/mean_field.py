"""Mean-field inference of a dense CRF with Potts compatibilities over lattices of its pixels (Krähenbühl and Koltun, 2011).

A pixel's probabilities sum to 1 and filtering is linear. So the first label is never filtered: it gets what filtering makes of
ones, less what the other labels get.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call
from excel_core.kernels.lattice import Lattice

__all__ = ["mean_field", "pixel_rows", "softmax"]

Floats = NDArray[np.float32]


def mean_field(unary: Floats, terms: Sequence[tuple[Lattice, float]], iterations: int) -> Floats:
    """unary (K, H, W) energies, K ≥ 2; terms: lattices of the pixels, column by column, each with its weight → label
    probabilities (K, H, W).

    Q <- softmax(-unary + sum of weight x the filtered Q), from Q = softmax(-unary), `iterations` times.
    """
    K, H, W = unary.shape
    start, sums = pixel_rows(unary)
    logits, probabilities, filtered = start, np.empty_like(start), np.empty_like(start)
    for step in range(iterations):
        call("softmax", start.shape[1], K - 1, len(start), logits, sums, probabilities, None)
        logits = start
        for lattice, weight in terms:
            logits = lattice.filtered(probabilities, weight, logits, filtered)
            if step == 0:
                sums += weight * lattice.of_ones  # in every iteration, the filtered Q of all labels sum to this
    return softmax(logits, K - 1, sums).reshape(K, W, H).transpose(0, 2, 1)


def pixel_rows(unary: Floats) -> tuple[Floats, Floats]:
    """unary (K, H, W) energies → the logits (W*H, lanes) of all labels but the first, a pixel's side by side and pixels column
    by column, and the sums (W*H,) of all labels' logits. From four lanes on, their number is a multiple of four."""
    K, H, W = unary.shape
    lanes = K - 1 if K < 5 else -(-(K - 1) // 4) * 4
    rows, sums = np.empty((W * H, lanes), np.float32), np.empty(W * H, np.float32)
    call("pixel_rows", lanes, K, H, W, np.ascontiguousarray(unary), rows, sums)
    return rows, sums


def softmax(logits: Floats, others: int, sums: Floats) -> Floats:
    """Logits (N, lanes) of `others` labels, all but the first, and the sums (N,) of all labels' logits → probabilities
    (1 + others, N)."""
    probabilities = np.empty((1 + others, len(logits)), np.float32)
    call("softmax", logits.shape[1], others, len(logits), logits, sums, None, probabilities)
    return probabilities
