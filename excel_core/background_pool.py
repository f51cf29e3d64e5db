"""Decoding before, and the CRF and writing after, on threads beside the one that runs the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import torch

__all__ = ["BackgroundPool", "read_ahead"]

Item = TypeVar("Item")
Content = TypeVar("Content")
MAX_READ_AHEAD = 16  # items
MAX_READERS = 8  # threads: more of them would only wait for Python's lock, and hold it from the thread that runs the model


class BackgroundPool:
    """`submit` hands calls to as many threads as torch uses; use as a context, which ends when all calls are done.

    Beside a GPU, calls run while it computes, and `submit` waits while more than two per thread are unfinished, so that memory
    does not grow. On a CPU the model needs the cores itself: `drain`, after each batch, waits for its calls, else they
    would fight for them. The next `submit`, `drain` or the end of the block raises the first error of a call.
    """

    def __init__(self, device: torch.device) -> None:
        self.beside, threads = device.type != "cpu", torch.get_num_threads()
        self._max_unfinished = 2 * threads
        self._pool = ThreadPoolExecutor(threads)
        self._calls: deque[Future[Any]] = deque()

    def __enter__(self) -> "BackgroundPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._wait(0)
        finally:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call `function(*arguments)` on a thread, in no order."""
        self._calls.append(self._pool.submit(function, *arguments))
        if self.beside:
            self._wait(self._max_unfinished)

    def drain(self) -> None:
        """A batch was handed over."""
        if not self.beside:
            self._wait(0)

    def _wait(self, max_unfinished: int) -> None:
        while len(self._calls) > max_unfinished:
            self._calls.popleft().result()


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Content], ahead: int = MAX_READ_AHEAD
) -> Iterator[tuple[Item, Content]]:
    """(item, read(item)) in order; up to `ahead` of them are read on threads before they are asked for."""
    waiting: deque[tuple[Item, Future[Content]]] = deque()
    with ThreadPoolExecutor(min(ahead, torch.get_num_threads(), MAX_READERS)) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
