"""Rows of text, one dict a row, and how a person reads them: numbers as words, Markdown, the terminal."""

import html
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "ABSENT", "Row", "columns", "defined", "duration", "interval", "markdown_table", "markdown_text", "number", "per_cent",
    "per_cent_interval", "place", "print_rows", "size",
]  # fmt: skip

Row = dict[str, str]  # column -> cell
ABSENT = "–"  # a value that is undefined or was not measured


def defined(value: Any) -> TypeGuard[float]:
    """A finite number: neither None nor NaN, nor True, which is an int to Python."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 3, sign: str = "") -> str:
    """A score as text, `–` for None and NaN; sign "+" writes the plus of a difference."""
    return f"{value:{sign}.{digits}f}" if defined(value) else ABSENT


def interval(scores: Mapping[str, Any], name: str, sign: str = "") -> str:
    """`0.432 ± 0.010 [0.41, 0.45]`: scores[name], then `std`, then `low` and `high`; each only where it is defined."""
    text = number(scores.get(name), sign=sign)
    if defined(scores.get("std")):
        text += f" ± {number(scores['std'])}"
    if defined(scores.get("low")) and defined(scores.get("high")):
        text += f" [{number(scores['low'], 2, sign)}, {number(scores['high'], 2, sign)}]"
    return text


def per_cent(value: Any, sign: str = "") -> str:
    """A share as per cent, one digit; text as it is."""
    if isinstance(value, str):
        return value
    return f"{100 * value:{sign}.1f}" if defined(value) else ABSENT


def per_cent_interval(scores: Mapping[str, Any], name: str, sign: str = "") -> str:
    """The same of scores[name], with `± std` and `[low, high]` behind it, each where it is defined."""
    text = per_cent(scores.get(name), sign)
    if defined(scores.get("std")):
        text += f" ± {per_cent(scores['std'])}"
    if defined(scores.get("low")) and defined(scores.get("high")):
        text += f" [{per_cent(scores['low'], sign)}, {per_cent(scores['high'], sign)}]"
    return text


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 59.95:  # from here on, one digit would read 60.0 s
        return f"{seconds:.1f} s"
    minutes, seconds_left = divmod(round(seconds), 60)
    return f"{minutes} min {seconds_left:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: int) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def columns(rows: Iterable[Row]) -> list[str]:
    """Every column of the rows, in order of first appearance."""
    return list(dict.fromkeys(column for row in rows for column in row))


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows as a GitHub-flavoured Markdown table, cells escaped; no rows, no text."""
    names = columns(rows)
    if not names:
        return ""
    cells = [names, *([row.get(name, ABSENT) for name in names] for row in rows)]
    head, *body = (" | ".join(map(markdown_text, line)) for line in cells)
    return "".join(f"| {line} |\n" for line in [head, " | ".join(["---"] * len(names)), *body])


def markdown_text(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line: no HTML, links, emphasis or cell ends."""
    # An underscore inside a word is only an underscore; at a word's end it would begin or end emphasis.
    special = r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))"
    escaped = re.sub(special, r"\\\1", " ".join(text.split()))
    return html.escape(escaped, quote=False)


def place(name: str, path: Path, link: str = "") -> str:
    """Where something lies, in Markdown: its name, as a link where there is one, and its path."""
    named = f"[{markdown_text(name)}]({link})" if link else markdown_text(name)
    return f"{named}: `{str(path).replace('`', '')}`"


def print_rows(
    console: Console, title: str, rows: Sequence[Row], notes: Sequence[str] = (), text_columns: Collection[str] = ()
) -> None:
    """Print rows as a table with notes below; no rows, no table. Columns of numbers are aligned right, unless they are among
    `text_columns`."""
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(title), title_justify="left", title_style="bold")
    for column in columns(rows):
        cells = [row.get(column, ABSENT) for row in rows]
        numeric = column not in text_columns and all(re.match(r"[+-]?[\d.–]", cell) for cell in cells)
        # Without a least width, rich breaks long words in narrow terminals.
        longest = max((len(word) for cell in cells for word in cell.split()), default=0)
        table.add_column(Text(column), justify="right" if numeric else "left", no_wrap=numeric, min_width=longest)
    for row in rows:
        table.add_row(*(Text(row.get(column, ABSENT)) for column in columns(rows)))
    console.print(table)
    for text in filter(None, notes):
        console.print(Text(text, style="dim"))
    console.print()
