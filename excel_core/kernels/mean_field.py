"""Mean-field inference of a dense CRF with Potts compatibilities over lattices of its pixels (Krähenbühl and Koltun, 2011), with
loops/filter.c and loops/mean_field.c.

A pixel's probabilities sum to 1 and filtering is linear. So the first label is never filtered: it gets what filtering makes of
ones, less what the other labels get.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call
from excel_core.kernels.lattice import Lattice

__all__ = ["lanes_of", "mean_field", "pixel_rows", "softmax"]

Floats = NDArray[np.float32]


def mean_field(unary: Floats, terms: Sequence[tuple[Lattice, float]], iterations: int) -> Floats:
    """unary (K, N) energies, K ≥ 2; terms: lattices of the N pixels, each with its weight → label probabilities (K, N).

    Q <- softmax(-unary + sum of weight x the filtered Q), from Q = softmax(-unary), `iterations` times.
    """
    others = len(unary) - 1
    start, sums = pixel_rows(-unary[1:]), -unary.sum(axis=0)
    logits, probabilities = start, np.empty_like(start)
    filtered = np.empty_like(start)
    for step in range(iterations):
        call("softmax", start.shape[1], others, len(start), logits, sums, probabilities, None)
        logits = start
        for lattice, weight in terms:
            logits = lattice.filtered(probabilities, weight, logits, filtered)
            if step == 0:
                sums += weight * lattice.of_ones  # in every iteration, the filtered Q of all labels sum to this
    return softmax(logits, others, sums)


def softmax(logits: Floats, others: int, sums: Floats) -> Floats:
    """Logits (N, lanes) of `others` labels, all but the first, and the sums (N,) of all labels' logits → probabilities
    (1 + others, N)."""
    result = np.empty((1 + others, len(logits)), np.float32)
    call("softmax", logits.shape[1], others, len(logits), logits, sums, None, result)
    return result


def lanes_of(labels: int) -> int:
    """How many values a pixel has for as many labels: from four on, so many that they are whole vectors."""
    return labels if labels < 4 else -(-labels // 4) * 4


def pixel_rows(logits: Floats) -> Floats:
    """logits (K, N) → (N, lanes), a pixel's labels side by side."""
    K, N = logits.shape
    rows = np.zeros((N, lanes_of(K)), np.float32)
    rows[:, :K] = logits.T
    return rows
