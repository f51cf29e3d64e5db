"""Loops over pixels, compiled by numba when they are first called in a process (seconds). They run without
Python's lock, so that threads share an image's rows or take an image each.

Arrays are C-contiguous and float32 unless said otherwise. Nothing is cached on disk: numba's own cache would be a pickle.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["CHUNK", "compiled"]

CHUNK = 512  # pixels that are worked on side by side, as vectors


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` by numba. Products and sums may be fused, nothing else is reordered."""
    import numba

    return numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})(function)
