"""A COCO annotation file → its images, categories and annotations, every entry checked.

Such a file holds image-level labels and masks together. So `read_entries` keeps only the fields that its caller names, while
it parses. With LABEL_FIELDS no polygon outlives its own annotation: the labels cannot depend on masks, and the 450 MB of
train2014 need hardly more memory than their text.
"""

import json
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.datasets.manifest import check_image_id
from excel_core.errors import DataError

__all__ = ["LABEL_FIELDS", "Entries", "Photo", "read_entries"]

Fields = Mapping[str, Callable[[Any], Any]]  # a field to keep → the function that its value goes through when it is parsed


def unchanged(value: Any) -> Any:
    """The value itself."""
    return value


LABEL_FIELDS: Fields = dict.fromkeys(
    ("images", "categories", "annotations", "id", "file_name", "height", "width", "name", "image_id", "category_id"), unchanged
)


@dataclass(frozen=True, slots=True)
class Photo:
    """An entry of `images`: its file's name without folder, and its size in pixels."""

    file_name: str
    height: int
    width: int

    @property
    def id(self) -> str:
        """The image's id in excel: the file's name without suffix."""
        return Path(self.file_name).stem


@dataclass(frozen=True)
class Entries:
    """A checked file: photos and names of categories, both by COCO's numbers; of each annotation the fields that were kept."""

    photos: dict[int, Photo]
    categories: dict[int, str]
    annotations: list[dict[str, Any]]


def read_entries(path: Path, keep: Fields = LABEL_FIELDS, *, annotated: bool = True) -> Entries:
    """Read an annotation file; where not `annotated` (image_info_*.json), its images alone.

    Raises DataError, naming file, entry and field, for what is not JSON, lacks a field or has another type in it; for numbers,
    file names or categories that occur twice; for a file name that leads out of the image folder; and for annotations of an
    image or a category that the file does not list.
    """
    document = _parsed(path, keep)
    photos = _photos(path.name, _list_of(path.name, document, "images"))
    if not annotated:
        return Entries(photos, {}, [])
    categories = _categories(path.name, _list_of(path.name, document, "categories"))
    annotations = _list_of(path.name, document, "annotations")
    _check_annotations(path.name, annotations, photos, categories)
    return Entries(photos, categories, annotations)


def _parsed(path: Path, keep: Fields) -> Any:
    # Called for every JSON object as soon as it is parsed, the innermost first: what is left out here is freed at once.
    def keep_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {field: keep[field](value) for field, value in pairs if field in keep}

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            text = str(mapped, "utf-8-sig")  # no second copy of the file beside the text
        return json.loads(text, object_pairs_hook=keep_fields)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, or an empty file
        raise DataError(f"{path}: not a JSON file ({error}); download it again") from error


def _list_of(file: str, document: Any, field: str) -> list[Any]:
    entries = document.get(field) if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise DataError(f"{file}: {field!r} must be a list of entries, got {_short(entries)}; is it COCO's annotation file?")
    return entries


def _photos(file: str, entries: list[Any]) -> dict[int, Photo]:
    photos: dict[int, Photo] = {}
    index_of: dict[str, int] = {}  # of the id in excel, in lower case: two files must not differ by case alone
    for index, entry in enumerate(entries):
        where = f"{file}: images[{index}]"
        number = _integer(entry, "id", where)
        if number in photos:
            raise DataError(f"{where}: another image has the id {number} already")
        height, width = (_integer(entry, field, where) for field in ("height", "width"))
        if min(height, width) < 1:
            raise DataError(f"{where}: 'height' and 'width' must be at least 1, got {height} and {width}")
        photo = photos[number] = Photo(_file_name(entry, where), height, width)
        first_index = index_of.setdefault(photo.id.casefold(), index)
        if first_index != index:
            raise DataError(f"{where}: images[{first_index}] is called {entries[first_index]['file_name']!r} already")
    return photos


def _file_name(entry: Any, where: str) -> str:
    name = _text(entry, "file_name", where)
    try:
        check_image_id(Path(name).stem if Path(name).name == name else name, where)
    except DataError:
        raise DataError(
            f"{where}: 'file_name' must be a file's name in the split's image folder, without a folder, got {name!r}"
        ) from None
    return name


def _categories(file: str, entries: list[Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for index, entry in enumerate(entries):
        where = f"{file}: categories[{index}]"
        number, name = _integer(entry, "id", where), _text(entry, "name", where)
        if number in categories or name in categories.values():
            raise DataError(f"{where}: another category has the id {number} or the name {name!r} already")
        categories[number] = name
    return categories


def _check_annotations(file: str, entries: list[Any], photos: dict[int, Photo], categories: dict[int, str]) -> None:
    numbers: set[int] = set()
    for index, entry in enumerate(entries):
        where = f"{file}: annotations[{index}]"
        number, image, category = (_integer(entry, field, where) for field in ("id", "image_id", "category_id"))
        if number in numbers:
            raise DataError(f"{where}: another annotation has the id {number} already")
        numbers.add(number)
        if image not in photos:
            raise DataError(f"{where} (id {number}): 'image_id' {image} is not in 'images'; of a part of COCO, keep both alike")
        if category not in categories:
            raise DataError(f"{where} (id {number}): 'category_id' {category} is not in 'categories'")


def _integer(entry: Any, field: str, where: str) -> int:
    value = _value(entry, field, where)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{where}: {field!r} must be a whole number, got {_short(value)}")
    return value


def _text(entry: Any, field: str, where: str) -> str:
    value = _value(entry, field, where)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: {field!r} must be text, got {_short(value)}")
    return value


def _value(entry: Any, field: str, where: str) -> Any:
    if not isinstance(entry, dict) or field not in entry:
        raise DataError(f"{where}: the field {field!r} is missing")
    return entry[field]


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) < 40 else f"{text[:37]}…"
