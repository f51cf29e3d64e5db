"""Loops over pixels, compiled by numba when they are first called in a process (seconds) and run without Python's lock, so
that threads share an image's rows or take an image each. Nothing is kept on disk: numba's own cache would be a pickle.

Arrays are C-contiguous, float32 unless said otherwise. A pixel's result does not depend on the number of threads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["compiled", "over_rows"]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` by numba; products and sums may be fused, nothing else is reordered."""
    import numba

    return numba.njit(nogil=True, fastmath={"contract", "nsz"})(function)


def over_rows(pool: ThreadPoolExecutor, threads: int, rows: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` on `threads` blocks of 0…rows at once; returns when all are done."""
    edges = [rows * i // threads for i in range(threads + 1)]
    for _ in pool.map(work, edges[:-1], edges[1:]):
        pass
