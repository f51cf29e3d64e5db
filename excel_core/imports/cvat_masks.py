"""CVAT's "Segmentation mask 1.1": a zip of RGB PNGs, SegmentationClass/ID.png, and labelmap.txt, which names their colours."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.errors import DataError
from excel_core.imports.annotated import BACKGROUND, Annotated, Draw, Shape, as_label

__all__ = ["LABEL_MAP", "read_cvat_masks"]

LABEL_MAP = "labelmap.txt"
MASKS = "SegmentationClass/"
COLOUR_CODE = np.array([1 << 16, 1 << 8, 1])  # red, green, blue → 0xRRGGBB


def read_cvat_masks(archive: zipfile.ZipFile, path: Path) -> Iterator[Annotated]:
    """Every image of the archive. DataError, naming `path`, for a label map that cannot be read, or no mask."""
    names = _colours(archive.read(LABEL_MAP), path)
    members = [name for name in archive.namelist() if name.startswith(MASKS) and name.lower().endswith(".png")]
    if not members:
        raise DataError(f"{path}: holds no {MASKS}*.png; export the task as 'Segmentation mask 1.1'")
    for member in members:
        name = member.removeprefix(MASKS)[: -len(".png")]
        try:
            codes = _codes(archive, member)
            labels = {int(code): names[int(code)] for code in np.unique(codes)}
        except KeyError as error:
            yield Annotated(name, left_out=f"its mask has the colour #{error.args[0]:06x}, which {LABEL_MAP} does not name")
        except Exception as error:  # a damaged file may raise almost anything inside its decoder
            yield Annotated(name, left_out=f"its mask cannot be read ({error})")
        else:
            shapes = (Shape(label, "mask", _drawn(codes, code)) for code, label in labels.items() if label != BACKGROUND)
            height, width = codes.shape
            yield Annotated(name, height, width, shapes=tuple(shapes))


def _colours(content: bytes, path: Path) -> dict[int, str]:
    """labelmap.txt, a line `name:r,g,b:parts:actions` for each label → names by colour, black being the background."""
    names: dict[int, str] = {0: BACKGROUND}
    for number, line in enumerate(content.decode("utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, colour = line.split(":")[:2]
            red, green, blue = (int(part) for part in colour.split(","))
        except ValueError:
            raise DataError(f"{path}: {LABEL_MAP} line {number}: expected NAME:R,G,B::, got {line!r}") from None
        names[red << 16 | green << 8 | blue] = as_label(name)
    return names


def _codes(archive: zipfile.ZipFile, member: str) -> NDArray[np.int64]:
    """A PNG's colours as 0xRRGGBB (H, W)."""
    with archive.open(member) as file, Image.open(file, formats=["PNG"]) as image:
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or 0):
            raise DataError("it has too many pixels")
        return np.asarray(np.asarray(image.convert("RGB")).astype(np.int64) @ COLOUR_CODE)


def _drawn(codes: NDArray[np.int64], code: int) -> Draw:
    return lambda height, width: codes == code
