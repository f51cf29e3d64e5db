"""Image-level labels, from labels.csv or from VOC's XML; never from a mask."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from excel_core.datasets.label_table import read_label_table
from excel_core.errors import DataError, ImageError, SettingError

__all__ = ["check_class_names", "in_class_order", "read_labels_csv", "read_labels_xml"]


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
    """Read `image,labels` (see label_table.py) → image id: its labels in class order.

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
    """Sort names by class, each once; DataError for a name that is no class."""
    found = set(names)
    unknown = sorted(found.difference(class_names))
    if unknown:
        advice = " (names are separated by ';')" if " " in unknown[0] else ""
        raise DataError(f"{where}: unknown label {unknown[0]!r}{advice}; valid: {', '.join(class_names)}")
    return [name for name in class_names if name in found]
