"""Loops over pixels, compiled by numba when they are first called in a process (seconds) and run without Python's lock, so
that threads share an image's rows or take an image each. Nothing is kept on disk: numba's own cache would be a pickle.

Arrays are C-contiguous, float32 unless said otherwise.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["RUN", "compiled"]

RUN = 512  # pixels that are worked on side by side, as vectors


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` by numba; products and sums may be fused, nothing else is reordered."""
    import numba

    return numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})(function)
