"""CVAT's XML "CVAT for images 1.1": tags are labels of an image; polygons, masks and ellipses make its label map.

    <image name width height> <tag label/> <polygon label points="x,y;x,y" z_order/> <mask label rle left top width height/> …

Read one image at a time. defusedxml refuses entities and document types: the file comes from elsewhere.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from excel_core.errors import DataError
from excel_core.imports.annotated import Annotated, Shape, as_label
from excel_core.imports.shapes import box_runs, ellipse, polygon

__all__ = ["read_cvat_xml"]

OUTLINES = ("polygon", "mask", "ellipse")  # which hold pixels
OTHERS = ("box", "polyline", "points", "cuboid", "skeleton")


def read_cvat_xml(file: IO[bytes], path: Path) -> Iterator[Annotated]:
    """Every image of the file. DataError, naming `path`, for what is not CVAT's XML for images."""
    count = 0
    try:
        for _, element in iterparse(file, events=("end",), forbid_dtd=True):
            if element.tag == "track":
                raise DataError(f"{path}: holds tracks of a video; export the task as 'CVAT for images 1.1'")
            if element.tag == "image":
                count += 1
                yield _image(element, f"{path}: image {count}")
                element.clear()
    except (ParseError, DefusedXmlException, UnicodeError) as error:
        raise DataError(f"{path}: not a readable XML file ({error or type(error).__name__})") from error
    if not count:
        raise DataError(f"{path}: has no element 'image'; export the task as 'CVAT for images 1.1'")


def _image(element: Element, where: str) -> Annotated:
    name = element.get("name", "")
    if not name:
        raise DataError(f"{where}: has no name")
    try:
        height, width = int(element.attrib["height"]), int(element.attrib["width"])
        tags = tuple(_label(tag) for tag in element.iterfind("tag"))
        shapes = [part for part in element if part.tag in (*OUTLINES, *OTHERS)]
        shapes.sort(key=lambda part: int(part.get("z_order", "0")))  # stable: of equal ones, the later lies above
        return Annotated(name, height, width, tags, tuple(_shape(part) for part in shapes))
    except KeyError as error:
        return Annotated(name, left_out=f"its annotation lacks {error.args[0]!r}")
    except (ValueError, DataError) as error:
        return Annotated(name, left_out=f"its annotation is damaged: {error}")


def _label(element: Element) -> str:
    return as_label(element.attrib["label"])


def _shape(element: Element) -> Shape:
    if element.tag == "polygon":
        numbers = [float(number) for point in element.attrib["points"].split(";") for number in point.split(",")]
        return Shape(_label(element), "polygon", polygon(numbers))
    if element.tag == "mask":
        counts = [int(count) for count in element.attrib["rle"].split(",")]
        box = (int(element.attrib[side]) for side in ("left", "top", "width", "height"))
        return Shape(_label(element), "mask", box_runs(counts, *box))
    if element.tag == "ellipse":
        x, y, radius_x, radius_y = (float(element.attrib[name]) for name in ("cx", "cy", "rx", "ry"))
        return Shape(_label(element), "ellipse", ellipse(x, y, radius_x, radius_y, float(element.get("rotation", "0"))))
    return Shape(_label(element), element.tag, None)
