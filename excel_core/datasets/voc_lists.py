"""Which images a split of a folder in VOC layout lists, and which of them are there.

ImageSets/Segmentation/SPLIT.txt       one id a line, or SBD's form: /JPEGImages/ID.jpg /SegmentationClassAug/ID.png

`train_aug`, or `trainaug`, comes with excel where the folder has neither list and the classes are VOC's twenty.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.manifest import check_image_id, most_bad
from excel_core.datasets.published_voc import AUGMENTED, has_voc_classes, published_labels, published_list
from excel_core.errors import DataError

__all__ = ["IMAGES", "SPLITS", "SUFFIXES", "check_voc_splits", "image_file", "list_file", "read_split"]

IMAGES = "JPEGImages"
SPLITS = "ImageSets/Segmentation"
SUFFIXES = (".jpg", ".jpeg", ".png")
SBD_LINE = re.compile(r"/?JPEGImages/([^/\s]+)\.(?:jpg|jpeg|png)\s+/?SegmentationClass(?:Aug)?/\1\.png")
SHOWN = 3  # images that an error names


def image_file(root: Path, image_id: str) -> str | None:
    """An image's path relative to the root, None where it is not there."""
    names = (f"{IMAGES}/{image_id}{suffix}" for suffix in SUFFIXES)
    return next((name for name in names if (root / name).is_file()), None)


def list_file(root: Path, split: str) -> Path | None:
    """The list of a split, train_aug's under either of its names; None where the folder has none."""
    lists = {path.stem: path for path in (root / SPLITS).glob("*.txt")}
    return next((lists[name] for name in (split, *(AUGMENTED if split in AUGMENTED else ())) if name in lists), None)


def read_split(root: Path, split: str, class_names: Sequence[str]) -> list[str]:
    """Ids of one split, in the list's order. DataError for a split without a list, and for a line that is no id, naming it."""
    path = list_file(root, split)
    if path is not None:
        return _ids_in(path)
    if has_voc_classes(class_names) and split in AUGMENTED:
        return list(published_list(split))
    raise DataError(f"unknown split {split!r}; {root / SPLITS} has: {_valid(root, class_names)}")


def check_voc_splits(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> None:
    """Raise DataError, in a line that names the setting: for a split without a list, for lists of which more images are missing
    than `read_voc` tolerates, and for images without labels. Looks for every image once and opens none."""
    ids, absent = {}, {}
    for split, setting in spec.settings_of_splits.items():
        if list_file(root, split) is None and not (has_voc_classes(class_names) and split in AUGMENTED):
            other = "train" if list_file(root, "train") else "NAME"
            raise DataError(
                f"{setting.partition('=')[0]}: unknown split {split!r}; {root / SPLITS} has: {_valid(root, class_names)}; "
                f"set another one, such as --set '{setting.format(other)}'"
            )
        ids[split] = read_split(root, split, class_names)
        absent[split] = [image_id for image_id in ids[split] if image_file(root, image_id) is None]
    _check_labels(root, spec, class_names, {name for split in spec.labelled_splits for name in ids[split]})
    listed_ids, missing = ({name for listed in lists.values() for name in listed} for lists in (ids, absent))
    without = [split for split in ids if len(absent[split]) == len(ids[split])]
    if without or (not spec.partial and len(missing) > most_bad(len(listed_ids), spec.max_bad)):
        worst = without[0] if without else max(absent, key=lambda split: len(absent[split]))
        raise DataError(_missing(root, spec, worst, absent[worst], len(ids[worst])))


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


def _missing(root: Path, spec: DatasetSpec, split: str, absent: Sequence[str], listed: int) -> str:
    """The message about a list with too many missing images."""
    path, setting = list_file(root, split), spec.settings_of_splits[split]
    source = f"{path.relative_to(root).as_posix()} lists" if path else f"the list {split}, which comes with excel, has"
    examples = ", ".join(absent[:SHOWN]) + (", …" if len(absent) > SHOWN else "")
    advice = ["get the whole data set"]
    if split == spec.train_split != "train" and list_file(root, "train"):
        advice.append(f"train on another list: --set {setting.format('train')}")
    if len(absent) < listed:
        advice.append("take the images that are there: --set dataset.partial=true")
    return (
        f"{setting.partition('=')[0]}: {source} {listed:,} images, of which {len(absent):,} are not in {root / IMAGES}: "
        f"{examples}; {', or '.join(advice)}"
    )


def _valid(root: Path, class_names: Sequence[str]) -> str:
    """The splits that there are, in words."""
    lists = sorted(path.stem for path in (root / SPLITS).glob("*.txt"))
    shipped = has_voc_classes(class_names) and list_file(root, AUGMENTED[0]) is None
    return ", ".join(lists) + (f"; excel has: {AUGMENTED[0]}" if shipped else "")


def _ids_in(path: Path) -> list[str]:
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
