"""Lines of a generated page, at most as long as the repository's others."""

import textwrap
from collections.abc import Iterable

__all__ = ["wrapped"]

WIDTH = 128


def wrapped(lines: Iterable[str]) -> list[str]:
    """The lines, words of a paragraph or list item brought to further lines where it is too long; tables stay."""
    short: list[str] = []
    for line in lines:
        if len(line) <= WIDTH or line.startswith("|"):
            short.append(line)
            continue
        indent = "  " if line.startswith(("- ", "* ")) else ""
        short += textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return short
