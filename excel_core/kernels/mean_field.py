"""Mean-field inference of a dense CRF with Potts compatibilities over lattices of its pixels (Krähenbühl and Koltun, 2011), by
loops/mean_field.c.

A pixel's probabilities sum to 1 and filtering is linear. So the first label is never filtered: it gets what filtering makes of
ones, less what the other labels get.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from excel_core.kernels.compiled import call
from excel_core.kernels.lattice import Lattice

__all__ = ["lanes_of", "mean_field", "pixel_rows", "softmax"]

Floats = NDArray[np.float32]


class _Term(ctypes.Structure):
    """`Term` of loops/mean_field.c."""

    _fields_ = (
        ("D", ctypes.c_int64),
        ("corners", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("grid", ctypes.c_void_p),
        ("next_grid", ctypes.c_void_p),
        ("factor", ctypes.c_float),
    )


def mean_field(unary: Floats, terms: Sequence[tuple[Lattice, float]], iterations: int) -> Floats:
    """unary (K, N) energies, K ≥ 2; terms: lattices of the N pixels, each with its weight → label probabilities (K, N).

    Q <- softmax(-unary + sum of weight x the filtered Q), from Q = softmax(-unary), `iterations` times. A step goes through the
    pixels once: it reads what was filtered, and spreads the new probabilities for the next filtering.
    """
    start, sums = pixel_rows(-unary[1:]), -unary.sum(axis=0)
    N, lanes = start.shape
    spread_on = [lattice.grid(lanes) for lattice, _ in terms]
    blurred = [np.empty_like(grid) for grid in spread_on]
    work = max((lattice.work(lanes) for lattice, _ in terms), key=len, default=None)
    result = np.empty_like(unary)
    for step in range(iterations + 1):
        places = (_Term * len(terms))()
        for place, (lattice, weight), grid, next_grid in zip(places, terms, blurred, spread_on, strict=True):
            place.D, place.factor = lattice.corners.shape[1], weight * lattice.scale
            place.corners, place.weights = lattice.corners.ctypes.data, lattice.weights.ctypes.data
            place.grid = grid.ctypes.data if step > 0 else None
            place.next_grid = next_grid.ctypes.data if step < iterations else None
        written = result if step == iterations else None
        call("mean_field_step", lanes, len(unary) - 1, N, start, sums, len(terms), places, written)
        if step == iterations:
            break
        for (lattice, weight), grid, next_grid in zip(terms, blurred, spread_on, strict=True):
            lattice.blur(next_grid, grid, work)
            if step == 0:
                sums += weight * lattice.of_ones  # in every iteration, the filtered Q of all labels sum to this
    return result


def softmax(logits: Floats, others: int, sums: Floats) -> Floats:
    """Logits (N, lanes) of `others` labels, all but the first, and the sums (N,) of all labels' logits → probabilities
    (1 + others, N)."""
    result = np.empty((1 + others, len(logits)), np.float32)
    call("mean_field_step", logits.shape[1], others, len(logits), logits, sums, 0, None, result)
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
