"""CSV files for people: a cell of text is never a formula."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from excel_core.files import written_then_renamed

__all__ = ["write_csv"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a formula of a cell, in spreadsheets


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Write rows of texts and numbers in UTF-8, completely or not at all. A text that a spreadsheet would compute gets an
    apostrophe in front, and is a text there."""
    with written_then_renamed(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(value) for value in row])


def _cell(value: str | float) -> str | float:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return round(value, 6)
