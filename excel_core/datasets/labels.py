"""Image-level labels from labels.csv or from VOC's XML; never from a mask.

image,labels[,split]     labels.csv. Names in a cell are separated by `;`, or by spaces where the file has no `;` and no class
                         name has a space in it: `dog person`, `traffic light; dog`.

The file is UTF-8, or UTF-16 with its byte order mark.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from excel_core.class_names import canonical_name, class_names_problem
from excel_core.errors import DataError, ImageError, SettingError, shown
from excel_core.text_files import decoded_text

__all__ = [
    "LabelRow",
    "LabelTable",
    "check_class_names",
    "in_class_order",
    "read_label_table",
    "read_labels_csv",
    "read_labels_xml",
]

OTHER_SEPARATORS = re.compile(r"[,|\[\]]")  # which other tools write between labels


@dataclass(frozen=True)
class LabelRow:
    """One row of labels.csv: where it stands ("labels.csv line 3"), its image and split as written, its cell of labels."""

    where: str
    image: str
    labels: str
    split: str = ""


@dataclass(frozen=True)
class LabelTable:
    """All rows of a labels.csv, before anything is made of them; no image has two."""

    rows: tuple[LabelRow, ...]

    def names(self, row: LabelRow, class_names: Sequence[str] = ()) -> list[str]:
        """The names in a row's cell. Without `class_names`, the file alone tells how names are separated."""
        return [canonical_name(name) for name in self.written_names(row, class_names)]

    def told_names(self) -> set[str]:
        """The class names that the table itself tells, as it writes them. DataError, naming the line, for a name that seems to
        be several: `dog,cat`, `dog|cat`."""
        names: set[str] = set()
        for row in self.rows:
            for name in self.written_names(row):
                if OTHER_SEPARATORS.search(name):
                    raise DataError(
                        f"{row.where}: labels are separated by ';', such as 'dog; cat', got {shown(row.labels)}; if {name!r} "
                        "is one class, say so in classes.yaml"
                    )
                names.add(name)
        return names

    def written_names(self, row: LabelRow, class_names: Sequence[str] = ()) -> list[str]:
        """As `names`, with accents composed as the file composes them."""
        by_semicolon = any(" " in name for name in class_names) or any(";" in other.labels for other in self.rows)
        if not by_semicolon:
            return row.labels.split()
        names = (" ".join(part.split()) for part in row.labels.split(";"))
        return [name for name in names if name]


def read_label_table(path: Path, *headers: Sequence[str]) -> LabelTable:
    """Read a table whose first line is one of `headers`.

    Raises DataError, naming the line, for a wrong header or row, and for a second row of one image.
    """
    try:
        with io.StringIO(decoded_text(path.read_bytes()), newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            if header not in [list(names) for names in headers]:
                valid = " or ".join(repr(",".join(names)) for names in headers)
                raise DataError(f"{path} line 1: the header must be {valid}, got {','.join(header)!r}")
            row_of: dict[str, LabelRow] = {}  # by the image's name with composed accents
            for cells in reader:
                if not cells:
                    continue  # an empty line
                where = f"{path} line {reader.line_num}"
                if len(cells) != len(header) or not cells[0].strip():
                    raise DataError(f"{where}: expected {', '.join(header)}, got {','.join(cells)!r}")
                row = LabelRow(where, *(cell.strip() for cell in cells))
                if row_of.setdefault(unicodedata.normalize("NFC", row.image), row) is not row:
                    raise DataError(f"{where}: {row.image} has a row already; merge the two")
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    return LabelTable(tuple(row_of.values()))


def read_labels_csv(path: Path, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Read a table `image,labels` → image id: its labels in class order.

    Raises DataError, naming the line, for a wrong header or row, a second row of one image, and a label
    that is not one of class_names.
    """
    table = read_label_table(path, ("image", "labels"))
    return {row.image: in_class_order(table.names(row, class_names), class_names, row.where) for row in table.rows}


def read_labels_xml(path: Path, class_names: Sequence[str]) -> list[str]:
    """Read one VOC annotation → the names of its objects, each once, in class order.

    Difficult objects count; the parts of a person (head, hand, foot), which are nested, do not.
    Raises ImageError where the file is missing, malformed, or names an unknown class.
    """
    try:
        # defusedxml, since Annotations are downloaded files: plain XML may expand entities without end.
        with path.open("rb") as file:
            names = [(node.text or "").strip() for node in parse(file).iterfind("object/name")]
    except FileNotFoundError as error:
        raise ImageError(f"no labels: Annotations/{path.name} is missing") from error
    except (ParseError, DefusedXmlException, ValueError, OSError) as error:
        raise ImageError(f"no labels: Annotations/{path.name} cannot be read ({error})") from error
    try:
        return in_class_order(names, class_names, f"Annotations/{path.name}")
    except DataError as error:
        raise ImageError(str(error)) from error


def in_class_order(names: Iterable[str], class_names: Sequence[str], where: str) -> list[str]:
    """Sort names by class, each once; DataError for a name that is no class. However an accent is composed, it is the same."""
    class_of = {canonical_name(name): name for name in class_names}
    present = {canonical_name(name) for name in names}
    unknown = sorted(present.difference(class_of))
    if unknown:
        advice = " (names are separated by ';')" if " " in unknown[0] or OTHER_SEPARATORS.search(unknown[0]) else ""
        raise DataError(f"{where}: unknown label {unknown[0]!r}{advice}; valid: {', '.join(class_names)}")
    return [name for canonical, name in class_of.items() if canonical in present]


def check_class_names(class_names: Sequence[str]) -> None:
    """Raise SettingError unless class_names are names that a labels.csv can hold (words with single spaces between them,
    without the `;` that separates names), and can be classes together (excel_core/class_names.py)."""
    if isinstance(class_names, str) or not class_names:
        raise SettingError(f"class_names must be a non-empty list of names, got {class_names!r}")
    odd = [name for name in class_names if not name or name != " ".join(name.split()) or ";" in name or not name.isprintable()]
    if odd:
        raise SettingError(
            f"class_names must be words with single spaces between them and without ';', all printable, got {shown(odd)}"
        )
    if len(set(class_names)) != len(class_names):
        raise SettingError(f"class_names must be distinct, got {list(class_names)}")
    problem = class_names_problem(class_names)
    if problem is not None:
        raise SettingError(f"class_names: {problem}")
