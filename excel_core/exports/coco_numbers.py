"""The numbers that COCO files give to images and classes: the data set's own, or counted from 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.config import DatasetSpec
from excel_core.datasets.coco import annotation_file, unlabelled_source
from excel_core.datasets.coco_json import read_entries
from excel_core.errors import DataError, SettingError
from excel_core.exports.label_maps import LabelMap

__all__ = ["CocoIndex", "CocoNumbers", "coco_numbers"]


@dataclass(frozen=True)
class CocoNumbers:
    """The numbers that a data set gives to its images, by id, and to its categories, by name."""

    images: dict[str, int]
    categories: dict[str, int]


def coco_numbers(root: Path, spec: DatasetSpec, split: str) -> CocoNumbers | None:
    """The numbers that the annotation files under root give to the images of `split` and to the training split's categories.

    None for another layout than coco, and where no annotation file lists the images. DataError where root is not there.
    """
    if spec.layout != "coco":
        return None
    if not root.is_dir():
        raise DataError(f"{root}: the run's data, whose annotation files hold the official numbers, are not there any more")
    source = unlabelled_source(root, split) if split in spec.test_splits else annotation_file(root, split)
    if source.is_dir():
        return None
    photos = read_entries(source, annotated=False).photos
    categories = read_entries(annotation_file(root, spec.train_split)).categories
    images = {photo.id: number for number, photo in photos.items()}
    return CocoNumbers(images, {name: number for number, name in categories.items()})


class CocoIndex:
    """Numbers for one export as it goes: those of `numbers`, or counted from 1. `images`: entries of the images so far.

    SettingError for an image or class that `numbers` does not know.
    """

    def __init__(self, class_names: Sequence[str], numbers: CocoNumbers | None) -> None:
        self._numbers = numbers
        self.class_numbers = {
            name: position if numbers is None else _number_of(name, numbers.categories, "class")
            for position, name in enumerate(class_names, start=1)
        }
        self.images: list[dict[str, Any]] = []

    @property
    def categories(self) -> list[dict[str, Any]]:
        """COCO's entries of the classes."""
        return [{"id": number, "name": name} for name, number in self.class_numbers.items()]

    @property
    def about(self) -> dict[str, str]:
        """What export.json says of the numbers."""
        return {"numbers": "the data set's own" if self._numbers else "counted from 1"}

    def add(self, label_map: LabelMap) -> int:
        """Note the image of a label map → its number."""
        numbers = self._numbers
        number = len(self.images) + 1 if numbers is None else _number_of(label_map.id, numbers.images, "image")
        height, width = label_map.read(len(self.class_numbers)).shape
        name = label_map.file_name or f"{label_map.id}.png"
        self.images.append({"id": number, "width": width, "height": height, "file_name": name})
        return number


def _number_of(name: str, numbers: dict[str, int], kind: str) -> int:
    """The number of an image or class; SettingError where it has none."""
    if name not in numbers:
        raise SettingError(f"the {kind} {name!r} has no number in the data's annotation file; is it still the run's data?")
    return numbers[name]
