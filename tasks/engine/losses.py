"""Losses of a training, told to whoever listens while it goes on. Nothing that is computed depends on them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from excel_core.training.loop import LossRow

__all__ = ["LossListener", "hearing_losses", "tell_losses"]

LossListener = Callable[[str, "Sequence[LossRow]"], None]  # name of the work, rows in the order of their iterations
_listener: ContextVar[LossListener | None] = ContextVar("loss listener", default=None)


@contextmanager
def hearing_losses(listener: LossListener) -> Iterator[None]:
    """Call `listener` with the losses of every training in this context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell_losses(work: str, rows: "Sequence[LossRow]") -> None:
    """Tell the losses of new iterations; of a training that goes on, those of its checkpoint too."""
    listener = _listener.get()
    if listener is not None and rows:
        listener(work, rows)
