"""Annotations and photos → a data set in the layout `folder`, which `excel run photos --data DIR` takes.

    images/ID.jpg               the photos: their own bytes, or upright and no larger than `max_side`
    labels.csv                  image, labels
    SegmentationClass/ID.png    masks, 0 background, i + 1 class i of classes.yaml
    classes.yaml                the classes in their order, with synonyms and background prompts

An image without any class is left out, since nothing can be learnt from it without masks. So is one whose annotation or photo
is damaged. An image whose annotation does not tell every pixel has labels and no mask. Each is named with its reason.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.datasets.images import AS_STORED, UPRIGHT, shrink_image
from excel_core.datasets.labels import check_class_names
from excel_core.datasets.manifest import check_image_id
from excel_core.datasets.palette import save_labels_png
from excel_core.datasets.photo_files import photo_suffixes
from excel_core.errors import DataError, SettingError
from excel_core.exports.photos import is_plain
from excel_core.imports.annotated import Annotated, Reader, paint
from excel_core.imports.photos import Photo, Photos
from excel_core.safe_csv import text_cell, write_csv
from excel_core.text.prompts import PromptSet

__all__ = ["Listed", "list_annotated", "write_data_set"]

IMAGES, MASKS = "images", "SegmentationClass"


@dataclass
class Listed:
    """What a file holds before anything is written: photos by the name of their image, classes, and reasons by name."""

    photos: dict[str, Photo] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def list_annotated(read: Reader, photos: Photos, class_names: Sequence[str] = ()) -> Listed:
    """Look at every image of a file. `class_names`: the only valid classes, in their order; else those that occur, in
    alphabetical order. DataError for a class that is not valid, two images of one name, and where nothing is left."""
    listed, present, name_of = Listed(), set[str](), dict[str, str]()
    for image in read():
        reason = image.left_out or ("" if image.classes else "no class is in it")
        if not reason:
            first_name = name_of.setdefault(_id(image.name).casefold(), image.name)
            if image.name in listed.photos:
                raise DataError(f"{image.name} is annotated twice; leave one out")
            if first_name != image.name:
                raise DataError(f"{first_name} and {image.name} would both be called {_id(image.name)!r}; rename one")
            unknown = sorted(image.classes.difference(class_names or image.classes))
            if unknown:
                raise DataError(f"{image.name}: unknown label {unknown[0]!r}; valid: {', '.join(class_names)}")
            try:
                listed.photos[image.name] = photos.find(image.name)
                present |= image.classes
            except DataError as error:
                reason = str(error)
        if reason:
            listed.left_out[image.name] = reason
    if not listed.photos:
        name, reason = next(iter(listed.left_out.items()), ("it", "there is none"))
        raise DataError(f"no image of the file can be used; {name}: {reason}")
    listed.class_names = tuple(class_names) or tuple(sorted(present, key=lambda name: (name.casefold(), name)))
    _check_names(listed.class_names)
    return listed


def write_data_set(folder: Path, read: Reader, listed: Listed, prompts: PromptSet, max_side: int | None) -> dict[str, Any]:
    """Fill the folder → what import.json says of it. `prompts`: the class set of `listed.class_names`."""
    rows: list[tuple[str, str]] = []
    without_mask: dict[str, str] = {}
    shrunk = 0
    (folder / IMAGES).mkdir()
    (folder / MASKS).mkdir()
    for image in read():
        photo = listed.photos.get(image.name)
        if photo is None:
            continue
        try:
            written = _write_photo(photo, image, folder / IMAGES, max_side)
        except DataError as error:
            listed.left_out[image.name] = str(error)
            continue
        shrunk += written.shrunk
        rows.append((f"{IMAGES}/{written.path.name}", ";".join(name for name in listed.class_names if name in image.classes)))
        reason = image.why_no_mask or _write_mask(image, listed.class_names, written, folder / MASKS)
        if reason:
            without_mask[image.name] = reason
    if not rows:
        name, reason = next(iter(listed.left_out.items()))
        raise DataError(f"no photo of the file can be used; {name}: {reason}")
    write_csv(folder / "labels.csv", ("image", "labels"), rows)
    (folder / "classes.yaml").write_text(_class_file(prompts), encoding="utf-8")
    return {
        "class_names": list(listed.class_names),
        "photos": len(rows),
        "masks": len(rows) - len(without_mask),
        "shrunk": shrunk,
        "left_out": listed.left_out,
        "without_mask": without_mask,
    }


@dataclass(frozen=True)
class _Written:
    path: Path
    height: int
    width: int
    shrunk: bool


def _write_photo(photo: Photo, image: Annotated, folder: Path, max_side: int | None) -> _Written:
    """The photo as it was annotated; DataError where it has another size, or cannot be read."""
    path = folder / f"{_id(image.name)}{photo.path.suffix.lower()}"
    small = max_side is None or max(image.height, image.width) <= max_side
    try:
        photo.copy(path)
        if image.height and small and is_plain(path, image.height, image.width):
            return _Written(path, image.height, image.width, False)
        pixels = _decoded(path, image)
    except DataError:
        path.unlink(missing_ok=True)
        raise
    path.unlink()
    size = pixels.shape
    pixels = pixels if max_side is None else shrink_image(pixels, max_side)
    path = path.with_suffix(".png")
    Image.fromarray(pixels).save(path)
    height, width = pixels.shape[:2]
    return _Written(path, height, width, pixels.shape != size)


def _decoded(path: Path, image: Annotated) -> NDArray[np.uint8]:
    """The photo's pixels as the tool showed them: upright, or as they are stored by a tool that knows no EXIF."""
    pixels = UPRIGHT.read(path)
    if not image.height or pixels.shape[:2] == (image.height, image.width):
        return pixels
    stored = AS_STORED.read(path)
    if stored.shape[:2] == (image.height, image.width):
        return stored
    raise DataError(
        f"its photo is {pixels.shape[0]} high and {pixels.shape[1]} wide, but was annotated at {image.height} by {image.width}"
    )


def _write_mask(image: Annotated, class_names: Sequence[str], photo: _Written, folder: Path) -> str:
    """The image's mask in its photo's size → "", or why there is none."""
    try:
        labels = paint(image, class_names)
    except DataError as error:
        return str(error)
    if labels.shape != (photo.height, photo.width):
        labels = np.asarray(Image.fromarray(labels).resize((photo.width, photo.height), Image.Resampling.NEAREST))
    save_labels_png(folder / f"{_id(image.name)}.png", labels)
    return ""


def _id(name: str) -> str:
    path = PurePosixPath(name)
    return check_image_id(path.stem if path.suffix.lower() in photo_suffixes() else path.name, name)


def _check_names(class_names: Sequence[str]) -> None:
    """SettingError for class names that labels.csv cannot hold."""
    check_class_names(class_names)
    formulas = [name for name in class_names if text_cell(name) != name]
    if formulas:
        raise SettingError(f"the class {formulas[0]!r} would be a formula in labels.csv; rename it")


def _class_file(prompts: PromptSet) -> str:
    """The class set in YAML, of which JSON's texts and lists are a part."""

    def quoted(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    classes = [{key: value for key, value in asdict(prompt).items() if value} for prompt in prompts.classes]
    lines = [f"name: {quoted(prompts.name)}", f"template: {quoted(prompts.template)}", "classes:"]
    lines += [f"  - {quoted(entry)}" for entry in classes]
    return "\n".join([*lines, f"background: {quoted(list(prompts.background))}", ""])
