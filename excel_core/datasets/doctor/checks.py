"""What a doctor reports: one check per thing looked at, with examples and what to do about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from excel_core.datasets.images import orientation_of, read_header, read_image

__all__ = [
    "MAX_EXAMPLES", "TURNED", "Check", "ImageLook", "Progress", "State", "can_run", "check_count", "check_failures",
    "look_at_image",
]  # fmt: skip

State = Literal["ok", "note", "warning", "problem"]  # a run can start with all but problems
Progress = Callable[[int], None]  # called with the number of images looked at so far
MAX_EXAMPLES = 5  # of a check
TURNED = (
    "viewers turn these photos, excel reads the pixels as stored, and the size of a mask cannot tell for which it was drawn: "
    "look at one; of upright masks, turn the photo's pixels too and remove its EXIF orientation"
)


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


@dataclass(frozen=True)
class ImageLook:
    """An image's height and width in pixels as stored, and its EXIF orientation (1: upright)."""

    height: int
    width: int
    orientation: int


def look_at_image(root: Path, image: str, quick: bool) -> ImageLook:
    """Decode the image below root, or read its header alone where `quick`. ImageError or OSError for a damaged one."""
    path = root / image
    orientation = orientation_of(path)
    if not quick:
        height, width, _ = read_image(path).shape
        return ImageLook(height, width, orientation)
    header = read_header(path)
    return ImageLook(header.height, header.width, orientation)
