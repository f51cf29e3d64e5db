"""How often the image-level labels that excel ships for VOC 2012 differ from the data folder's own."""

from collections.abc import Sequence
from pathlib import Path

from excel_core.datasets.doctor.checks import Check, faults
from excel_core.datasets.published_voc import published_labels
from excel_core.datasets.voc import label_reader
from excel_core.errors import ImageError

__all__ = ["compare_published"]

NAME = "published labels"


def compare_published(root: Path, ids: Sequence[str], class_names: Sequence[str]) -> Check:
    """Compare the labels in labels.csv, else in Annotations, with the published ones, for those of `ids` that both know. The
    check's state is ok or note, since a run takes one of them as it is."""
    table = (root / "labels.csv").is_file()
    source = "labels.csv" if table else "Annotations"
    published, labels_of = published_labels(), label_reader(root, class_names, "folder")
    compared, other = 0, []
    for image in (image for image in ids if image in published):
        try:
            labels = labels_of(image)
        except ImageError:
            continue  # said by the check of the labels, where a run would read them
        compared += 1
        if set(labels) != set(published[image]):
            other.append(f"{image}: published {_words(published[image])}; {source} {_words(labels)}")
    if not compared:
        return Check(NAME, "ok", f"no image has labels in {source} as well")
    taken = "labels.csv" if table else "the published ones"
    switch = "move it away for the published ones" if table else "--set dataset.labels=folder for those of Annotations"
    return faults(NAME, other, compared, f"they differ from {source}; a run takes {taken}; {switch}", "note")


def _words(labels: Sequence[str]) -> str:
    return " ".join(labels) or "none"
