"""The numbers that COCO files give to images and classes: the data set's own, or counted from 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.coco import annotation_file, unlabelled_source
from excel_core.datasets.coco_json import read_entries
from excel_core.errors import DataError, SettingError

__all__ = ["CocoNumbers", "category_numbers", "coco_numbers", "number_of"]


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


def category_numbers(class_names: Sequence[str], numbers: CocoNumbers | None) -> dict[str, int]:
    """Class names in their order → their numbers; SettingError for a class that `numbers` does not know."""
    if numbers is None:
        return {name: position + 1 for position, name in enumerate(class_names)}
    return {name: number_of(name, numbers.categories, "class") for name in class_names}


def number_of(name: str, numbers: dict[str, int], kind: str) -> int:
    """The number of an image or class; SettingError where it has none."""
    if name not in numbers:
        raise SettingError(f"the {kind} {name!r} has no number in the data's annotation file; is it still the run's data?")
    return numbers[name]
