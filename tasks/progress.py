"""Progress of long loops: a bar on a terminal, a line every tenth elsewhere (a log, a worker)."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Counter", "track"]

T = TypeVar("T")


class Counter:
    """Shows how far a stage of `total` steps is; use as a context."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done = stage, total, 0
        columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        terminal = sys.stderr.isatty()
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) if terminal else None
        self._task = self._bar.add_task(stage, total=total) if self._bar else None

    def __enter__(self) -> "Counter":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar:
            self._bar.stop()

    def to(self, done: int) -> None:
        """`done` steps are behind us."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done)
        elif done * 10 // max(1, self.total) > self.done * 10 // max(1, self.total):
            print(f"{self.stage}: {done}/{self.total}", file=sys.stderr, flush=True)
        self.done = done


def track(items: Iterable[T], stage: str, total: int) -> Iterator[T]:
    """Yield `items`, of which there are `total`, counting them."""
    with Counter(stage, total) as counter:
        for done, item in enumerate(items, 1):
            yield item
            counter.to(done)
