"""A folder in VOC layout → the manifest: which images, of which split, with which image-level labels.

JPEGImages/ID.jpg                      (or .jpeg, .png)
ImageSets/Segmentation/SPLIT.txt       see voc_lists.py
labels.csv                             image,labels; takes precedence over the published labels of VOC 2012's images, and over
Annotations/ID.xml                     VOC's own boxes, of which only the names are used
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from excel_core.datasets.labels import check_class_names, read_labels_csv, read_labels_xml
from excel_core.datasets.listed import NO_LABELS, Listed, check_splits, read_listed
from excel_core.datasets.manifest import Manifest
from excel_core.datasets.published_voc import has_voc_classes, published_labels
from excel_core.datasets.voc_lists import IMAGES, SPLITS, SUFFIXES, image_file, read_split
from excel_core.errors import DataError, ImageError

__all__ = ["LabelReader", "LabelSource", "check_voc_layout", "label_reader", "read_voc"]

SHOWN = 8  # how many entries of a wrong folder an error names

LabelSource = Literal["published", "folder"]
LabelReader = Callable[[str], list[str]]  # image id → labels in class order; ImageError where there are none


def read_voc(
    root: Path,
    splits: Sequence[str],
    class_names: Sequence[str],
    *,
    unlabelled: Sequence[str] = (),
    max_bad: float = 0.01,
    threads: int = 4,
    labels: LabelSource = "published",
    partial: bool = False,
) -> Manifest:
    """Read the data set under root → Manifest, rows in the order of splits and of their list files.

    splits are names of list files (see `read_split`), class_names the C foreground classes in class order; the images of
    `unlabelled` ones among them need no labels. Every image is
    decoded once, in `threads` threads, since only that finds a truncated file. An image that is
    missing, damaged, too small or without labels keeps its row, with the reason in `error`; more than
    max_bad of them (a share in [0, 1], but always at least one image) end the reading. `partial`: images that are missing
    are left out instead; `manifest.attrs["absent"]` counts them by split. `labels` as in `label_reader`.

    Raises DataError for a root of another layout, an unknown split, an id that is listed twice or leads
    out of the folder, an unknown label in labels.csv, for too many bad images, and for a split of which nothing is there.
    Never opens a mask.
    """
    check_class_names(class_names)
    check_splits(splits)
    published = labels == "published" and has_voc_classes(class_names)
    check_voc_layout(root, labels_needed=set(splits) > set(unlabelled) and not published)
    labels_of = label_reader(root, class_names, labels)
    listed: list[Listed] = []
    absent: dict[str, int] = {}
    for split in splits:
        ids = read_split(root, split, class_names)
        there = [image_id for image_id in ids if image_file(root, image_id)] if partial else ids
        absent[split] = len(ids) - len(there)
        if not there:
            raise DataError(f"split {split!r}: none of its {len(ids):,} images is in {root / IMAGES}")
        listed += [_listed(root, image_id, split, None if split in unlabelled else labels_of) for image_id in there]
    manifest = read_listed(root, listed, max_bad=max_bad, threads=threads)
    manifest.attrs["absent"] = {split: count for split, count in absent.items() if count} if partial else {}
    return manifest


def _listed(root: Path, image_id: str, split: str, labels_of: LabelReader | None) -> Listed:
    image = image_file(root, image_id) or f"{IMAGES}/{image_id}{SUFFIXES[0]}"
    if labels_of is None:
        return Listed(image_id, split, image)
    try:
        labels = labels_of(image_id)
    except ImageError as error:
        return Listed(image_id, split, image, problem=str(error))
    return Listed(image_id, split, image, tuple(labels), "" if labels else NO_LABELS)


def label_reader(root: Path, class_names: Sequence[str], labels: LabelSource = "published") -> LabelReader:
    """Choose the source of labels: labels.csv where there is one; else, for "published" and VOC's twenty classes, the labels
    that excel ships, for the images that these know; else one XML file an image."""
    table = root / "labels.csv"
    if table.is_file():
        return _from_table(read_labels_csv(table, class_names))
    published = published_labels() if labels == "published" and has_voc_classes(class_names) else {}

    def look_up(image_id: str) -> list[str]:
        if image_id in published:
            return [name for name in class_names if name in published[image_id]]
        return read_labels_xml(root / "Annotations" / f"{image_id}.xml", class_names)

    return look_up


def _from_table(labels: dict[str, list[str]]) -> LabelReader:
    def look_up(image_id: str) -> list[str]:
        if image_id not in labels:
            raise ImageError("no labels: labels.csv has no row for this image")
        return labels[image_id]

    return look_up


def check_voc_layout(root: Path, labels_needed: bool = True) -> None:
    """Raise DataError, saying what was looked for, what is there and what to pass, unless root is VOC."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; pass the folder that holds {IMAGES}/ and {SPLITS}/")
    missing = [] if (root / IMAGES).is_dir() else [f"{IMAGES}/"]
    if not any((root / SPLITS).glob("*.txt")):
        missing.append(f"{SPLITS}/*.txt")
    if labels_needed and not (root / "labels.csv").is_file() and not (root / "Annotations").is_dir():
        missing.append("labels.csv or Annotations/")
    if not missing:
        return
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    found = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    nearest = _nearest_root(root)
    advice = f"; pass {nearest} instead" if nearest else ""
    raise DataError(
        f"{root}: not a data set in VOC layout: looked for {', '.join(missing)}; found {found or 'an empty folder'}{advice}"
    )


def _nearest_root(root: Path) -> Path | None:
    """Find a VOC root up to two folders below (VOCdevkit/VOC2012) or above; None where there is none."""
    below = [path.parent for depth in ("*", "*/*") for path in sorted(root.glob(f"{depth}/{IMAGES}"))]
    for place in [*below, *list(root.resolve().parents)[:2]]:
        if (place / IMAGES).is_dir() and (place / SPLITS).is_dir():
            return place
    return None
