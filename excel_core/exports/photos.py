"""The photos that label maps were made for, taken along: a tool that shows one over the other needs both in one size."""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from PIL import ExifTags, Image

from excel_core.datasets.images import DecodeOptions, read_header
from excel_core.errors import DataError
from excel_core.exports.label_maps import LabelMap

__all__ = ["PLAIN_SUFFIXES", "check_photos", "is_plain", "with_photos"]

PLAIN_SUFFIXES = (".jpg", ".jpeg", ".png")  # what every tool reads


def check_photos(maps: Iterable[LabelMap]) -> None:
    """DataError, naming the first, where photos are not there any more."""
    missing = [str(label_map.photo) for label_map in maps if label_map.photo is None or not label_map.photo.is_file()]
    if missing:
        raise DataError(
            f"{len(missing):,} photos of the run are not there any more, first {missing[0]}; this format takes them along"
        )


def with_photos(maps: Iterable[LabelMap], folder: Path, decode: DecodeOptions, classes: int) -> Iterator[LabelMap]:
    """Write the photo of each label map into `folder` → the label map with the name of that file.

    A photo's own bytes where every tool sees in them what the run saw; else, turned or shrunk as the run saw it, a PNG.
    """
    folder.mkdir(parents=True)
    for label_map in maps:
        photo = label_map.photo
        if photo is None:
            raise DataError(f"{label_map.id}: its photo is not known")
        height, width = label_map.read(classes).shape
        name = f"{label_map.id}{photo.suffix.lower() if is_plain(photo, height, width) else '.png'}"
        if is_plain(photo, height, width):
            shutil.copyfile(photo, folder / name)
        else:
            image = decode.read(photo)
            if image.shape[:2] != (height, width):
                raise DataError(
                    f"{photo}: has changed since the run: {image.shape[:2]} instead of {(height, width)} (height, width)"
                )
            Image.fromarray(image).save(folder / name)
        yield replace(label_map, file_name=name)


def is_plain(photo: Path, height: int, width: int) -> bool:
    """Whether the file itself shows height by width pixels in every tool: JPEG or PNG in colour or grey, and not turned by its
    EXIF."""
    if photo.suffix.lower() not in PLAIN_SUFFIXES:
        return False
    header = read_header(photo)
    if (header.height, header.width) != (height, width) or header.mode not in ("RGB", "L"):
        return False
    with photo.open("rb") as file, Image.open(file, formats=["JPEG", "PNG"]) as image:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1)) == 1
