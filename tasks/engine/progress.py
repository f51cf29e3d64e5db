"""Progress of long loops: a bar on a terminal, a line every tenth elsewhere (a log, a worker), and whoever listens."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Counter", "listening", "say", "track", "uncounted"]

T = TypeVar("T")
Listener = Callable[[str, int, int], None]  # name of the work, done, total
_counter: ContextVar["Counter | None"] = ContextVar("counter", default=None)
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


class Counter:
    """Shows how far a stage of `total` steps is; use as a context. `track` within it counts on."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done = stage, total, 0
        columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        terminal = sys.stderr.isatty()
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) if terminal else None
        self._task = self._bar.add_task(stage, total=total) if self._bar else None

    def __enter__(self) -> "Counter":
        self._token = _counter.set(self)
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        _counter.reset(self._token)
        if self._bar:
            self._bar.stop()

    def to(self, done: int) -> None:
        """`done` steps are behind us."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done)
        elif done * 10 // max(1, self.total) > self.done * 10 // max(1, self.total):
            print(f"{self.stage}: {done}/{self.total}", file=sys.stderr, flush=True)
        if (listener := _listener.get()) and done != self.done:
            listener(self.stage, done, self.total)
        self.done = done


def say(text: str) -> None:
    """Tell whoever watches, beside the log."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` at every step of the counters opened meanwhile in this context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def uncounted() -> Iterator[None]:
    """No counter for what starts in this context: parts that run side by side are counted as they finish, not within."""
    token = _counter.set(None)
    try:
        yield
    finally:
        _counter.reset(token)


def track(items: Iterable[T], weigh: Callable[[T], int] = lambda item: 1) -> Iterator[T]:
    """Yield `items`; the stage's counter, where one is open in this process, goes on by each one's weight."""
    counter = _counter.get()
    for item in items:
        yield item
        if counter is not None:
            counter.to(min(counter.total, counter.done + weigh(item)))
