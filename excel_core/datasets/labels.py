"""Image-level labels, from labels.csv or from VOC's XML; never from a mask.

labels.csv has the columns `image,labels`. Names in a cell are separated by `;`, and by spaces where no `;` is in the cell
and no class name has a space in it: `dog person`, `traffic light; dog`.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from excel_core.errors import DataError, ImageError, SettingError

__all__ = ["check_class_names", "read_labels_csv", "read_labels_xml"]

HEADER = ["image", "labels"]


def check_class_names(class_names: Sequence[str]) -> None:
    """Raise SettingError unless class_names are distinct names that a labels.csv can hold: words with single spaces between
    them, without the `;` that separates names."""
    if isinstance(class_names, str) or not class_names:
        raise SettingError(f"class_names must be a non-empty list of names, got {class_names!r}")
    odd = [name for name in class_names if not name or name != " ".join(name.split()) or ";" in name]
    if odd:
        raise SettingError(f"class_names must be words with single spaces between them and without ';', got {odd}")
    if len(set(class_names)) != len(class_names):
        raise SettingError(f"class_names must be distinct, got {list(class_names)}")


def read_labels_csv(path: Path, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Read `image,labels` → image id: its labels in class order.

    Raises DataError, naming the line, for a wrong header or row, a second row of one image, and a label
    that is not one of class_names.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(rows, [])]
            if header != HEADER:
                raise DataError(f"{path} line 1: the header must be 'image,labels', got {','.join(header)!r}")
            labels: dict[str, list[str]] = {}
            for row in rows:
                where = f"{path} line {rows.line_num}"
                if not row:
                    continue  # an empty line
                if len(row) != 2 or not row[0].strip():
                    raise DataError(f"{where}: expected an image id and its labels, got {','.join(row)!r}")
                image_id = row[0].strip()
                if image_id in labels:
                    raise DataError(f"{where}: {image_id} has a row already; merge the two")
                labels[image_id] = _in_class_order(_names(row[1], class_names), class_names, where)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    return labels


def read_labels_xml(path: Path, class_names: Sequence[str]) -> list[str]:
    """Read one VOC annotation → the names of its objects, each once, in class order.

    Difficult objects count; the parts of a person (head, hand, foot), which are nested, do not.
    Raises ImageError where the file is missing, malformed, or names an unknown class.
    """
    try:
        with path.open("rb") as file:
            names = [(node.text or "").strip() for node in parse(file).iterfind("object/name")]
    except FileNotFoundError as error:
        raise ImageError(f"no labels: Annotations/{path.name} is missing") from error
    except (ParseError, DefusedXmlException, ValueError, OSError) as error:
        raise ImageError(f"no labels: Annotations/{path.name} cannot be read ({error})") from error
    try:
        return _in_class_order(names, class_names, f"Annotations/{path.name}")
    except DataError as error:
        raise ImageError(str(error)) from error


def _names(cell: str, class_names: Sequence[str]) -> list[str]:
    """The names in a cell of labels.csv; one alone where spaces may belong to it."""
    if ";" in cell or any(" " in name for name in class_names):
        return [name for part in cell.split(";") if (name := " ".join(part.split()))]
    return cell.split()


def _in_class_order(names: Iterable[str], class_names: Sequence[str], where: str) -> list[str]:
    """Sort names by class, each once; DataError for a name that is no class."""
    found = set(names)
    unknown = sorted(found.difference(class_names))
    if unknown:
        advice = " (names are separated by ';')" if " " in unknown[0] else ""
        raise DataError(f"{where}: unknown label {unknown[0]!r}{advice}; valid: {', '.join(class_names)}")
    return [name for name in class_names if name in found]
