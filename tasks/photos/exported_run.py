"""Which run `excel export` takes: one that holds what is to be exported."""

from pathlib import Path

from excel_core.errors import SettingError
from tasks.history.find_run import find_record
from tasks.history.run_record import RunRecord
from tasks.photos.export import MODEL_FORMATS, ExportRequest

__all__ = ["find_exported"]

SEGMENTER = ("train", "knowledge", "dataset")
SEGMENTATION = ("predict", "knowledge", "dataset")
PSEUDO_LABELS = ("dynamic or refine", "knowledge", "dataset")


def find_exported(store: Path, name: str, request: ExportRequest) -> RunRecord:
    """The run called `name` that holds what `request` asks for; where it does not say what, segmentations come before pseudo
    labels. SettingError as of `find_record`."""
    if request.format in MODEL_FORMATS:
        return find_record(store, name, SEGMENTER)
    if request.what == "segmentation":
        return find_record(store, name, SEGMENTATION)
    if request.what is None:
        try:
            return find_record(store, name, SEGMENTATION)
        except SettingError:
            return find_record(store, name, PSEUDO_LABELS)
    return find_record(store, name, PSEUDO_LABELS)
