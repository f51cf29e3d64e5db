"""A folder in VOC layout → the manifest: which images, of which split, with which image-level labels.

JPEGImages/ID.jpg                      (or .jpeg, .png)
ImageSets/Segmentation/SPLIT.txt       one id a line, or SBD's form: /JPEGImages/ID.jpg /SegmentationClassAug/ID.png
labels.csv                             image,labels; takes precedence over
Annotations/ID.xml                     VOC's own boxes, of which only the names are used
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from excel_core.datasets.labels import check_class_names, read_labels_csv, read_labels_xml
from excel_core.datasets.listed import NO_LABELS, Listed, check_splits, read_listed
from excel_core.datasets.manifest import Manifest, check_image_id
from excel_core.errors import DataError, ImageError

__all__ = ["IMAGES", "SPLITS", "SUFFIXES", "LabelReader", "check_voc_layout", "label_reader", "read_split", "read_voc"]

IMAGES = "JPEGImages"
SPLITS = "ImageSets/Segmentation"
SUFFIXES = (".jpg", ".jpeg", ".png")
SBD_LINE = re.compile(r"/?JPEGImages/([^/\s]+)\.(?:jpg|jpeg|png)\s+/?SegmentationClass(?:Aug)?/\1\.png")
SHOWN = 8  # how many entries of a wrong folder an error names

LabelReader = Callable[[str], list[str]]  # image id → labels in class order; ImageError where there are none


def read_voc(
    root: Path,
    splits: Sequence[str],
    class_names: Sequence[str],
    *,
    unlabelled: Sequence[str] = (),
    max_bad: float = 0.01,
    threads: int = 4,
) -> Manifest:
    """Read the data set under root → Manifest, rows in the order of splits and of their list files.

    splits are names of list files, class_names the C foreground classes in class order; the images of
    `unlabelled` ones among them need no labels. Every image is
    decoded once, in `threads` threads, since only that finds a truncated file. An image that is
    missing, damaged, too small or without labels keeps its row, with the reason in `error`; more than
    max_bad of them (a share in [0, 1], but always at least one image) end the reading.

    Raises DataError for a root of another layout, an unknown split, an id that is listed twice or leads
    out of the folder, an unknown label in labels.csv, and for too many bad images.
    Never opens a mask.
    """
    check_class_names(class_names)
    check_splits(splits)
    check_voc_layout(root, labels_needed=set(splits) > set(unlabelled))
    labels_of = label_reader(root, class_names)
    listed = [
        _listed(root, image_id, split, None if split in unlabelled else labels_of)
        for split in splits
        for image_id in read_split(root, split)
    ]
    return read_listed(root, listed, max_bad=max_bad, threads=threads)


def _listed(root: Path, image_id: str, split: str, labels_of: LabelReader | None) -> Listed:
    names = [f"{IMAGES}/{image_id}{suffix}" for suffix in SUFFIXES]
    image = next((name for name in names if (root / name).is_file()), names[0])
    if labels_of is None:
        return Listed(image_id, split, image)
    try:
        labels = labels_of(image_id)
    except ImageError as error:
        return Listed(image_id, split, image, problem=str(error))
    return Listed(image_id, split, image, tuple(labels), "" if labels else NO_LABELS)


def label_reader(root: Path, class_names: Sequence[str]) -> LabelReader:
    """Choose the source of labels: labels.csv where there is one, else one XML file an image."""
    table = root / "labels.csv"
    if not table.is_file():
        return lambda image_id: read_labels_xml(root / "Annotations" / f"{image_id}.xml", class_names)
    labels = read_labels_csv(table, class_names)

    def look_up(image_id: str) -> list[str]:
        if image_id not in labels:
            raise ImageError("no labels: labels.csv has no row for this image")
        return labels[image_id]

    return look_up


def read_split(root: Path, split: str) -> list[str]:
    """Ids of one split, in file order. DataError for a split without a list, and for a line that is no id, naming it."""
    valid = sorted(path.stem for path in (root / SPLITS).glob("*.txt"))
    if split not in valid:
        raise DataError(f"unknown split {split!r}; {root / SPLITS} has: {', '.join(valid)}")
    path = root / SPLITS / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error})") from error
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        pair = SBD_LINE.fullmatch(line.strip())
        if not pair and len(line.split()) > 1:
            raise DataError(f"{path} line {number}: an image id is one file name without white space, got {line!r}")
        image_id = check_image_id(pair[1] if pair else line.strip(), f"{path} line {number}")
        if image_id in line_of:
            raise DataError(f"{path} line {number}: {image_id} is on line {line_of[image_id]} already")
        line_of[image_id] = number
    if not line_of:
        raise DataError(f"{path}: lists no image; write one id a line")
    return list(line_of)


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
