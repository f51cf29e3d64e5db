"""Progress of long loops: a bar on a terminal, lines elsewhere (a log, a pipe, a worker), and whoever listens.

cams: 480/1,464, 33 %, 1 min 05 s, 7.4/s, 2 min 13 s to go
train: 2,000/30,000, 7 %, 12 min 40 s, 2.6/s, 2 h 57 min to go, loss 0.4321
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from artifacts.rows import duration

__all__ = ["Counter", "listening", "say", "track", "uncounted"]

T = TypeVar("T")
Listener = Callable[[str, int, int], None]  # name of the work, done, total
_counter: ContextVar["Counter | None"] = ContextVar("counter", default=None)
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)

# Where there is no terminal: a line at every tenth, unless the last one is so new, and whenever it is so old.
MIN_SECONDS, MAX_SECONDS = 1.0, 30.0


class Counter:
    """Shows how far a stage of `total` steps is; use as a context. `track` within it counts on."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done, self.remark = stage, total, 0, ""
        columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        more = (TimeRemainingColumn(), TextColumn("{task.fields[rate]} {task.fields[remark]}"))
        terminal = sys.stderr.isatty()
        self._bar = Progress(*columns, *more, console=Console(stderr=True)) if terminal else None
        self._task = self._bar.add_task(stage, total=total, rate="", remark="") if self._bar else None
        self._started = time.monotonic()
        self._printed: float | None = None
        self._first: tuple[int, float] | None = None  # done when it was first told, and when: a resumed training begins late

    def __enter__(self) -> "Counter":
        self._token = _counter.set(self)
        self._started = time.monotonic()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        _counter.reset(self._token)
        if self._bar:
            self._bar.stop()

    def to(self, done: int) -> None:
        """`done` steps are behind us."""
        if self._first is None:
            self._first = done, time.monotonic()
        if self._bar and self._task is not None:
            rate, _ = self._rate_and_rest(done)
            self._bar.update(self._task, completed=done, rate=rate, remark=self.remark)
        elif self._is_due(done):
            self._printed = time.monotonic()
            print(self.line(done), file=sys.stderr, flush=True)
        if (listener := _listener.get()) and done != self.done:
            listener(self.stage, done, self.total)
        self.done = done

    def line(self, done: int) -> str:
        """How far `done` is, the time since the start, and, once they can be told, the rate, the time to go and the remark."""
        share = f"{100 * done // max(1, self.total)} %"
        words = [f"{self.stage}: {done:,}/{self.total:,}", share, duration(time.monotonic() - self._started)]
        return ", ".join([*words, *filter(None, self._rate_and_rest(done)), *([self.remark] if self.remark else [])])

    def _is_due(self, done: int) -> bool:
        if done == self.done:
            return False
        waited = time.monotonic() - (self._started if self._printed is None else self._printed)
        is_tenth = done * 10 // max(1, self.total) > self.done * 10 // max(1, self.total)
        is_soon = self._printed is not None and waited < MIN_SECONDS
        return done >= self.total or waited >= MAX_SECONDS or (is_tenth and not is_soon)

    def _rate_and_rest(self, done: int) -> tuple[str, str]:
        """Steps a second since the first were told, and the time that the others will take so; "" where nobody knows."""
        first, at = self._first or (done, 0.0)
        counted, seconds = done - first, time.monotonic() - at
        if seconds <= 0 or counted <= 0:
            return "", ""
        per_second = counted / seconds
        time_left = f"{duration((self.total - done) / per_second)} to go" if done < self.total else ""
        return (f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"), time_left


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
