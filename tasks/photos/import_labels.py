"""Labels and masks that people corrected in another tool, written as a data set that `excel run photos` takes."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.config.presets import preset
from excel_core.errors import SettingError
from excel_core.exports.folder import check_free, whole_folder
from excel_core.imports.annotated import Annotated
from excel_core.imports.data_set import list_annotated, write_data_set
from excel_core.imports.formats import READERS
from excel_core.imports.photos import Photos
from excel_core.text.class_sets import class_set_of_file, named_classes
from tasks.engine.progress import say

__all__ = ["ImportRequest", "import_labels"]

PHOTOS = "images"  # beside the file, where an export put them


@dataclass(frozen=True)
class ImportRequest:
    """What to import: a tool's file, the folder or zip of its photos (None: in the file, or in images/ beside it), the class
    set that its labels must be of (None: those it has). `predictions` takes pre-annotations as they are; `force` replaces an
    earlier import in the same folder."""

    file: Path
    format: str
    photos: Path | None = None
    classes: str | None = None
    predictions: bool = False
    force: bool = False


def import_labels(request: ImportRequest, out: Path) -> dict[str, Any]:
    """Fill `out`, completely or not at all → what import.json then says."""
    if request.format not in READERS:
        raise SettingError(f"--format {request.format!r}: valid formats: {', '.join(READERS)}")
    reader = READERS[request.format]
    if request.predictions and not reader.predictions:
        valid = ", ".join(name for name, other in READERS.items() if other.predictions)
        raise SettingError(f"--predictions is for --format {valid}")
    if not request.file.is_file():
        raise SettingError(f"{request.file}: there is no such file")
    check_free(out, request.force, "import")
    prompts = class_set_of_file(request.classes) if request.classes else None
    photos = _photos(request)

    def read() -> Iterator[Annotated]:
        return reader.read(request.file, predictions=True) if request.predictions else reader.read(request.file)

    say(f"import: looking through {request.file.name}")
    listed = list_annotated(read, photos, prompts.class_names if prompts else ())
    prompts = prompts or named_classes(listed.class_names)
    description: dict[str, Any] = {"as": request.format, "from": request.file.name}
    with whole_folder(out, request.force, description, "import") as folder:
        description |= write_data_set(folder, read, listed, prompts, preset("photos").dataset.max_side)
    return description


def _photos(request: ImportRequest) -> Photos:
    """Where the photos are; SettingError where there are none."""
    beside = request.file.parent / PHOTOS
    if request.photos is not None:
        photos, place = Photos(request.photos), str(request.photos)
    elif zipfile.is_zipfile(request.file) and (inside := Photos(request.file)):
        return inside
    elif beside.is_dir():
        photos, place = Photos(beside), str(beside)
    else:
        raise SettingError(f"--photos is needed: {request.file.name} holds no photos, and there is no folder {beside}")
    if not photos:
        raise SettingError(f"--photos {place}: holds no photo")
    return photos
