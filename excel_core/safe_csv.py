"""CSV files for people: a cell of text is never a formula."""

import csv
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from excel_core.errors import StoreError
from excel_core.files import written_then_renamed

__all__ = ["read_rows", "text_cell", "write_csv"]

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what makes a formula of a cell, in spreadsheets


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Write rows of texts and numbers in UTF-8, completely or not at all. A text that a spreadsheet would compute gets an
    apostrophe in front, and is a text there."""
    with written_then_renamed(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(value) for value in row])


def read_rows(path: Path, count: int) -> list[dict[str, str]]:
    """The first `count` rows of a file of `write_csv`, by column; texts as they were given."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(islice(csv.DictReader(file), count))
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError(f"{path}: not readable ({error}); rerun the stage that writes it") from None
    return [{name: _text(value) for name, value in row.items()} for row in rows]


def _text(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith((*FORMULA, "'")) else cell


def text_cell(text: str) -> str:
    """The text as a cell: with an apostrophe in front, where a spreadsheet would compute it."""
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def _cell(value: str | float) -> str | float:
    return text_cell(value) if isinstance(value, str) else round(value, 6)
