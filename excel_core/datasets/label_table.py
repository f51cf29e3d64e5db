"""labels.csv as it is written: its rows with their lines, before anything is made of them.

image,labels[,split]     Names in a cell are separated by `;`, or by spaces where the file has no `;` and no class name has a
                         space in it: `dog person`, `traffic light; dog`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from excel_core.errors import DataError

__all__ = ["LabelRow", "LabelTable", "read_label_table"]


@dataclass(frozen=True)
class LabelRow:
    """One row: where it stands ("labels.csv line 3"), its image and split as written, and the cell with its labels."""

    where: str
    image: str
    labels: str
    split: str = ""


@dataclass(frozen=True)
class LabelTable:
    """All rows of a table, none of them twice."""

    rows: tuple[LabelRow, ...]

    def names(self, row: LabelRow, class_names: Sequence[str] = ()) -> list[str]:
        """The names in a row's cell; with `class_names` not known yet, the file alone tells how they are separated."""
        spaced = any(" " in name for name in class_names) or any(";" in other.labels for other in self.rows)
        if not spaced:
            return row.labels.split()
        return [name for part in row.labels.split(";") if (name := " ".join(part.split()))]


def read_label_table(path: Path, *headers: Sequence[str]) -> LabelTable:
    """Read a table whose first line is one of `headers`.

    Raises DataError, naming the line, for a wrong header or row, and for a second row of one image.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            if header not in [list(names) for names in headers]:
                valid = " or ".join(repr(",".join(names)) for names in headers)
                raise DataError(f"{path} line 1: the header must be {valid}, got {','.join(header)!r}")
            found: dict[str, LabelRow] = {}
            for cells in reader:
                if not cells:
                    continue  # an empty line
                where = f"{path} line {reader.line_num}"
                if len(cells) != len(header) or not cells[0].strip():
                    raise DataError(f"{where}: expected {', '.join(header)}, got {','.join(cells)!r}")
                row = LabelRow(where, *(cell.strip() for cell in cells))
                if row.image in found:
                    raise DataError(f"{where}: {row.image} has a row already; merge the two")
                found[row.image] = row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    return LabelTable(tuple(found.values()))
