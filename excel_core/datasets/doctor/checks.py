"""What a doctor found: one check each, with examples and what to do about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Progress", "State", "counted", "faults", "usable"]

State = Literal["ok", "note", "warning", "problem"]  # a run can start with all but problems
Progress = Callable[[int], None]  # told how many images are behind us
SHOWN = 5  # examples of a check


@dataclass(frozen=True)
class Check:
    """One check: its name, its state, what was found in words, some examples, and what to do ("" for nothing)."""

    name: str
    state: State
    found: str
    examples: tuple[str, ...] = ()
    advice: str = ""


def faults(name: str, found: Sequence[str], of: int, advice: str, state: State = "problem") -> Check:
    """A check of `of` things, of which those named in `found` failed."""
    if not found:
        return Check(name, "ok", f"{of:,}")
    return Check(name, state, f"{len(found):,} of {of:,}", tuple(sorted(found)[:SHOWN]), advice)


def counted(name: str, count: int, expected: int, what: str = "") -> Check:
    """A check of a number that the whole data set is known to have; another one is no problem, a part is one's own choice."""
    words = f"{count:,}{what}"
    if count == expected:
        return Check(name, "ok", words)
    return Check(
        name,
        "warning",
        f"{words}, the published data have {expected:,}",
        (),
        "right for a part of the data; else download again",
    )


def usable(checks: Sequence[Check]) -> bool:
    """Whether a run can start."""
    return all(check.state != "problem" for check in checks)
