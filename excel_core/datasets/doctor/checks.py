"""What a doctor reports: one check per thing looked at, with examples and what to do about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from excel_core.datasets.images import read_header, read_image

__all__ = ["MAX_EXAMPLES", "Check", "Progress", "State", "can_run", "check_count", "check_failures", "size_of_image"]

State = Literal["ok", "note", "warning", "problem"]  # a run can start with all but problems
Progress = Callable[[int], None]  # called with the number of images looked at so far
MAX_EXAMPLES = 5  # of a check


@dataclass(frozen=True)
class Check:
    """One check: its name, its state, what was found in words, some examples, and what to do ("" for nothing). The fields are
    those of `excel doctor --json`."""

    name: str
    state: State
    found: str
    examples: tuple[str, ...] = ()
    advice: str = ""


def check_failures(name: str, failures: Sequence[str], total: int, advice: str, state: State = "problem") -> Check:
    """A check of `total` things, of which those named in `failures` failed."""
    if not failures:
        return Check(name, "ok", f"{total:,}")
    return Check(name, state, f"{len(failures):,} of {total:,}", tuple(sorted(failures)[:MAX_EXAMPLES]), advice)


def check_count(name: str, count: int, expected: int, unit: str = "") -> Check:
    """A check of a number that the whole data set has. Another number is a warning, since a run may use a part of the data."""
    words = f"{count:,}{unit}"
    if count == expected:
        return Check(name, "ok", words)
    words = f"{words}, the published data have {expected:,}"
    return Check(name, "warning", words, (), "right for a part of the data; else download again")


def can_run(checks: Sequence[Check]) -> bool:
    """Whether a run can start."""
    return all(check.state != "problem" for check in checks)


def size_of_image(path: Path, quick: bool) -> tuple[int, int]:
    """(height, width) of an image, by the file's header alone where `quick`. ImageError or OSError for a damaged one."""
    if not quick:
        height, width, _ = read_image(path).shape
        return height, width
    header = read_header(path)
    return header.height, header.width
