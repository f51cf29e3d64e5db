"""Decoding before, and the CRF and writing after, on threads beside the one that runs the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import torch

__all__ = ["BackgroundPool", "read_ahead"]

Item = TypeVar("Item")
Read = TypeVar("Read")


class BackgroundPool:
    """`call` hands work to as many threads as torch uses; use as a context, which ends when all of it is done.

    Beside a GPU calls run while it computes, and `call` waits while more than two a thread are unfinished, so that memory
    does not grow. On a CPU the model needs the cores itself: `drain`, after each batch, waits for its calls, else they
    would fight for them. The first error of a call is raised by the next `call`, `drain` or the end of the block.
    """

    def __init__(self, device: torch.device) -> None:
        self.beside, threads = device.type != "cpu", torch.get_num_threads()
        self._most = 2 * threads
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

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run `function(*arguments)` on a thread, in no order."""
        self._calls.append(self._pool.submit(function, *arguments))
        if self.beside:
            self._wait(self._most)

    def drain(self) -> None:
        """A batch was handed over."""
        if not self.beside:
            self._wait(0)

    def _wait(self, most: int) -> None:
        """Until no more than `most` calls are unfinished."""
        while len(self._calls) > most:
            self._calls.popleft().result()


def read_ahead(items: Iterable[Item], read: Callable[[Item], Read], ahead: int = 16) -> Iterator[tuple[Item, Read]]:
    """(item, read(item)) in order; up to `ahead` of them are read on threads before they are asked for."""
    waiting: deque[tuple[Item, Future[Read]]] = deque()
    with ThreadPoolExecutor(min(ahead, torch.get_num_threads())) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > ahead:
                    first, found = waiting.popleft()
                    yield first, found.result()
            while waiting:
                first, found = waiting.popleft()
                yield first, found.result()
        finally:
            pool.shutdown(cancel_futures=True)
