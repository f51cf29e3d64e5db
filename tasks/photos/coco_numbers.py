"""The numbers that a run's COCO data give to images and categories, for results that COCO's own tools read."""

from pathlib import Path

from excel_core.datasets.coco_files import annotation_file, unlabelled_source
from excel_core.datasets.coco_json import read_entries
from excel_core.errors import DataError
from excel_core.exports.coco_results import CocoNumbers
from tasks.history.run_record import RunRecord

__all__ = ["coco_numbers"]


def coco_numbers(record: RunRecord, split: str) -> CocoNumbers | None:
    """Of the split's images and of the training split's categories; None for data in another layout, and for images that no
    annotation file lists. DataError where the data are not there any more."""
    spec = record.run.dataset
    if spec.layout != "coco" or record.data is None:
        return None
    root = Path(record.data)
    if not root.is_dir():
        raise DataError(f"{root}: the run's data, whose annotation files hold the official numbers, are not there any more")
    source = unlabelled_source(root, split) if split in spec.test_splits else annotation_file(root, split)
    if source.is_dir():
        return None
    photos = read_entries(source, annotated=False).photos
    categories = read_entries(annotation_file(root, spec.train_split)).categories
    return CocoNumbers(
        {photo.id: number for number, photo in photos.items()}, {name: number for number, name in categories.items()}
    )
