"""A folder in VOC layout → the manifest: which images, of which split, with which image-level labels.

JPEGImages/ID.jpg                      (or .jpeg, .png, in any case)
ImageSets/Segmentation/SPLIT.txt       one id a line, or SBD's form (lists.py)
labels.csv                             image,labels; takes precedence over the published labels of VOC 2012's images, and over
Annotations/ID.xml                     VOC's own boxes, of which only the names are used

`train_aug`, or `trainaug`, comes with excel where the folder has neither list and the classes are VOC's twenty.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from excel_core.class_names import canonical_name
from excel_core.config import DatasetSpec
from excel_core.datasets.labels import check_class_names, read_labels_csv, read_labels_xml
from excel_core.datasets.lists import read_list
from excel_core.datasets.manifest import (
    NO_LABELS,
    ListedImage,
    Manifest,
    build_manifest,
    check_split_names,
    max_bad_images,
)
from excel_core.datasets.photo_files import find_file, is_hidden
from excel_core.datasets.published_voc import AUGMENTED, has_voc_classes, published_labels, published_list
from excel_core.errors import DataError, ImageError, and_more

__all__ = [
    "IMAGES",
    "SPLITS",
    "LabelReader",
    "LabelSource",
    "check_voc_layout",
    "check_voc_splits",
    "image_file",
    "label_reader",
    "list_file",
    "read_split",
    "read_voc",
]

IMAGES = "JPEGImages"
SPLITS = "ImageSets/Segmentation"
# Cameras write .JPG as well as .jpg.
SUFFIXES = (".jpg", ".JPG", ".Jpg", ".jpeg", ".JPEG", ".Jpeg", ".png", ".PNG", ".Png")
MAX_ENTRIES = 8  # of a wrong folder, that an error names
MAX_MISSING = 3  # images that an error names

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
    `unlabelled` splits need no labels. Every image is decoded once, in `threads` threads, since only that finds a truncated
    file. An image that is missing, damaged, too small or without labels keeps its row, with the reason in `error`; more than
    max_bad of them (a share in [0, 1], but always at least one image) end the reading. `partial`: images that are missing
    are left out instead, and `manifest.attrs["absent"]` counts them by split. `labels` as in `label_reader`.

    Raises DataError for a root of another layout, an unknown split, an id that is listed twice or leads
    out of the folder, an unknown label in labels.csv, for too many bad images, and for a split of which nothing is there.
    Never opens a mask.
    """
    check_class_names(class_names)
    check_split_names(splits)
    published = labels == "published" and has_voc_classes(class_names)
    check_voc_layout(root, labels_needed=set(splits) > set(unlabelled) and not published)
    labels_of = label_reader(root, class_names, labels)
    listed: list[ListedImage] = []
    absent: dict[str, int] = {}
    for split in splits:
        ids = read_split(root, split, class_names)
        # Looked for on the disk only with `partial`: else a missing image keeps its row, with the reason.
        present = [image_id for image_id in ids if image_file(root, image_id)] if partial else ids
        absent[split] = len(ids) - len(present)
        if not present:
            raise DataError(f"split {split!r}: none of its {len(ids):,} images is in {root / IMAGES}")
        listed += [_listed_image(root, image_id, split, None if split in unlabelled else labels_of) for image_id in present]
    manifest = build_manifest(root, listed, max_bad=max_bad, threads=threads)
    manifest.attrs["absent"] = {split: count for split, count in absent.items() if count} if partial else {}
    return manifest


def _listed_image(root: Path, image_id: str, split: str, labels_of: LabelReader | None) -> ListedImage:
    image = image_file(root, image_id) or f"{IMAGES}/{image_id}{SUFFIXES[0]}"
    if labels_of is None:
        return ListedImage(image_id, split, image)
    try:
        labels = labels_of(image_id)
    except ImageError as error:
        return ListedImage(image_id, split, image, problem=str(error))
    return ListedImage(image_id, split, image, tuple(labels), "" if labels else NO_LABELS)


def label_reader(root: Path, class_names: Sequence[str], labels: LabelSource = "published") -> LabelReader:
    """Choose the source of labels: labels.csv where there is one; else, for "published" and VOC's twenty classes, the labels
    that excel ships, for the images that these know; else one XML file per image."""
    table = root / "labels.csv"
    if table.is_file():
        return _from_table(read_labels_csv(table, class_names))
    # VOC's own Annotations differ from the published labels for some images, so the published program's numbers need these.
    published = published_labels() if labels == "published" and has_voc_classes(class_names) else {}

    def look_up(image_id: str) -> list[str]:
        if image_id in published:
            return [name for name in class_names if name in published[image_id]]
        return read_labels_xml(root / "Annotations" / f"{image_id}.xml", class_names)

    return look_up


def _from_table(labels: dict[str, list[str]]) -> LabelReader:
    by_name = {canonical_name(image): names for image, names in labels.items()}  # lists may compose accents otherwise

    def look_up(image_id: str) -> list[str]:
        name = canonical_name(image_id)
        for row in (name, *(f"{name}{suffix}" for suffix in SUFFIXES)):  # a table may name the file
            if row in by_name:
                return by_name[row]
        raise ImageError("no labels: labels.csv has no row for this image")

    return look_up


def image_file(root: Path, image_id: str) -> str | None:
    """An image's path relative to the root, None where it is not there."""
    names = (f"{IMAGES}/{image_id}{suffix}" for suffix in SUFFIXES)
    return next((file for name in names if (file := find_file(root, name)) is not None), None)


def list_file(root: Path, split: str) -> Path | None:
    """The list of a split, train_aug's under either of its names; None where the folder has none."""
    lists = {path.stem: path for path in _list_files(root)}
    names = (split, *AUGMENTED) if split in AUGMENTED else (split,)
    return next((lists[name] for name in names if name in lists), None)


def _list_files(root: Path) -> list[Path]:
    return [path for path in (root / SPLITS).glob("*.txt") if not is_hidden(path.name)]


def read_split(root: Path, split: str, class_names: Sequence[str]) -> list[str]:
    """Ids of one split, in the list's order. DataError for a split without a list, and for a line that is no id, naming it."""
    path = list_file(root, split)
    if path is not None:
        return read_list(path)
    if has_voc_classes(class_names) and split in AUGMENTED:
        return list(published_list(split))
    raise DataError(f"unknown split {split!r}; {root / SPLITS} has: {_valid_splits(root, class_names)}")


def _valid_splits(root: Path, class_names: Sequence[str]) -> str:
    lists = sorted(path.stem for path in _list_files(root))
    shipped = has_voc_classes(class_names) and list_file(root, AUGMENTED[0]) is None
    return ", ".join(lists) + (f"; excel has: {AUGMENTED[0]}" if shipped else "")


def check_voc_layout(root: Path, labels_needed: bool = True) -> None:
    """Raise DataError, saying what was looked for, what is there and what to pass, unless root is VOC."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; pass the folder that holds {IMAGES}/ and {SPLITS}/")
    missing = [] if (root / IMAGES).is_dir() else [f"{IMAGES}/"]
    if not _list_files(root):
        missing.append(f"{SPLITS}/*.txt")
    if labels_needed and not (root / "labels.csv").is_file() and not (root / "Annotations").is_dir():
        missing.append("labels.csv or Annotations/")
    if not missing:
        return
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    nearest = _nearest_root(root)
    advice = f"; pass {nearest} instead" if nearest else ""
    raise DataError(
        f"{root}: not a data set in VOC layout: looked for {', '.join(missing)}; "
        f"found {and_more(entries, MAX_ENTRIES) or 'an empty folder'}{advice}"
    )


def _nearest_root(root: Path) -> Path | None:
    """Find a VOC root up to two folders below (VOCdevkit/VOC2012) or above; None where there is none."""
    below = [path.parent for depth in ("*", "*/*") for path in sorted(root.glob(f"{depth}/{IMAGES}"))]
    above = list(root.resolve().parents)[:2]
    candidates = (folder for folder in [*below, *above] if (folder / IMAGES).is_dir() and (folder / SPLITS).is_dir())
    return next(candidates, None)


def check_voc_splits(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> None:
    """Raise DataError, in a line that names the setting: for a split without a list, for lists of which more images are missing
    than `read_voc` tolerates, and for images without labels. Looks for every image once and opens none."""
    ids: dict[str, list[str]] = {}
    absent: dict[str, list[str]] = {}
    for split, setting in spec.settings_of_splits.items():
        if list_file(root, split) is None and not (has_voc_classes(class_names) and split in AUGMENTED):
            example = setting.format("train" if list_file(root, "train") else "NAME")
            raise DataError(
                f"{setting.partition('=')[0]}: unknown split {split!r}; {root / SPLITS} has: "
                f"{_valid_splits(root, class_names)}; set another one, such as --set '{example}'"
            )
        ids[split] = read_split(root, split, class_names)
        absent[split] = [image_id for image_id in ids[split] if image_file(root, image_id) is None]
    _check_labels(root, spec, class_names, {image_id for split in spec.labelled_splits for image_id in ids[split]})
    # An image of two splits counts once, as in `check_bad_share`.
    all_ids = {image_id for split in ids for image_id in ids[split]}
    all_absent = {image_id for split in absent for image_id in absent[split]}
    empty_splits = [split for split in ids if len(absent[split]) == len(ids[split])]
    if empty_splits or (not spec.partial and len(all_absent) > max_bad_images(len(all_ids), spec.max_bad)):
        worst = empty_splits[0] if empty_splits else max(absent, key=lambda split: len(absent[split]))
        raise DataError(_missing_images(root, spec, worst, absent[worst], len(ids[worst])))


def _check_labels(root: Path, spec: DatasetSpec, class_names: Sequence[str], ids: set[str]) -> None:
    """DataError where the folder has no labels at all and the published ones lack some image."""
    if (root / "labels.csv").is_file() or (root / "Annotations").is_dir():
        return
    published = spec.labels == "published" and has_voc_classes(class_names)
    without = sorted(ids - published_labels().keys() if published else ids)
    if without:
        raise DataError(
            f"{root}: no labels for {len(without):,} of {len(ids):,} images, such as {without[0]}: looked for labels.csv or "
            "Annotations/; write labels.csv (image,labels)"
        )


def _missing_images(root: Path, spec: DatasetSpec, split: str, absent: Sequence[str], listed: int) -> str:
    """The message about a list of `listed` images of which too many are absent."""
    path, setting = list_file(root, split), spec.settings_of_splits[split]
    source = f"{path.relative_to(root).as_posix()} lists" if path else f"the list {split}, which comes with excel, has"
    examples = ", ".join(absent[:MAX_MISSING]) + (", …" if len(absent) > MAX_MISSING else "")
    advice = ["get the whole data set"]
    if split == spec.train_split != "train" and list_file(root, "train"):
        advice.append(f"train on another list: --set {setting.format('train')}")
    if len(absent) < listed:
        advice.append("take the images that are there: --set dataset.partial=true")
    return (
        f"{setting.partition('=')[0]}: {source} {listed:,} images, of which {len(absent):,} are not in {root / IMAGES}: "
        f"{examples}; {', or '.join(advice)}"
    )
