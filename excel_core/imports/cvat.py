"""A file that CVAT exported: its XML for images, alone or in a zip, or its segmentation masks in a zip."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from excel_core.errors import DataError
from excel_core.imports.annotated import Annotated
from excel_core.imports.cvat_masks import LABEL_MAP, read_cvat_masks
from excel_core.imports.cvat_xml import read_cvat_xml

__all__ = ["read_cvat"]

XML = "annotations.xml"
MAX_BYTES = 1 << 30  # of a member's content, unpacked: a small archive may unpack to more than there is room for


def read_cvat(path: Path) -> Iterator[Annotated]:
    """Every image of the file. DataError where it is none of CVAT's."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield from read_cvat_xml(file, path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _read_archive(archive, path)
    except (zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: a member with a password
        raise DataError(f"{path}: not a readable zip ({error})") from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Iterator[Annotated]:
    large = [entry.filename for entry in archive.infolist() if entry.file_size > MAX_BYTES]
    if large:
        raise DataError(f"{path}: {large[0]} has more than {MAX_BYTES:,} bytes")
    if XML in archive.namelist():
        with archive.open(XML) as member:
            yield from read_cvat_xml(member, path)
    elif LABEL_MAP in archive.namelist():
        yield from read_cvat_masks(archive, path)
    else:
        raise DataError(
            f"{path}: holds neither {XML} nor {LABEL_MAP}; export the task as 'CVAT for images 1.1' or as "
            "'Segmentation mask 1.1'"
        )
