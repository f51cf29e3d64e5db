"""PASCAL VOC 2012 as downloaded, with SBD's augmented masks: counts, missing and mismatched files, what to download, and
whether a run with the preset's settings starts."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from excel_core.config import DatasetSpec
from excel_core.datasets.doctor.checks import Check, Progress, counted, faults
from excel_core.datasets.doctor.voc_labels import compare_published
from excel_core.datasets.images import read_image
from excel_core.datasets.palette import load_labels_png
from excel_core.datasets.published_voc import AUGMENTED, has_voc_classes, published_list
from excel_core.datasets.voc import LabelReader, check_voc_layout, label_reader
from excel_core.datasets.voc_lists import IMAGES, SPLITS, check_voc_splits, image_file, list_file, read_split
from excel_core.errors import DataError, ImageError

__all__ = ["PRESET_SPLITS", "examine_voc"]

PRESET_SPLITS = "splits of preset voc"  # the check whose note says that a run needs other settings

COUNTS = {"train": 1464, "val": 1449, "test": 1456, "train_aug": 10_582}
MASKS, EXTRA_MASKS = "SegmentationClass", "SegmentationClassAug"
TRAINVAL = "get VOCtrainval_11-May-2012.tar from the PASCAL VOC 2012 page and unpack it here"
ABSENT = {
    "test": "for the VOC server alone: get the VOC 2012 test tar from that server, then dataset.test_splits=[test]",
    "train_aug": (
        "the usual training set of 10,582 images: put SBD's SegmentationClassAug/ here, and its list into "
        f"{SPLITS}/train_aug.txt; without it, train on another list: --set dataset.train_split=train"
    ),
}
ADVICE = {
    "images": TRAINVAL,
    "labels": f"needed in the training split: {TRAINVAL}, or write labels.csv (image,labels)",
    "masks": f"needed for scores alone: {TRAINVAL}; those of train_aug are SBD's {EXTRA_MASKS}/",
    "damaged files": "download them again",
    "masks fit their images": "masks of another size cannot be scored: take both from the same download",
    "mask values": "labels are 0 to the number of classes, and 255: take the masks as downloaded",
    "masks are palette PNGs": "excel reads VOC's colours too; other tools do not. Save them as palette PNGs",
}
HARMLESS = ("masks", "masks are palette PNGs")  # a run starts all the same
Faults = dict[str, list[str]]


def examine_voc(
    root: Path, class_names: Sequence[str], *, quick: bool = False, progress: Progress = lambda done: None, threads: int = 8
) -> list[Check]:
    """Look at the data set under root → checks, in the order to show them. `quick` reads headers alone and decodes nothing.
    DataError for a folder of another layout."""
    check_voc_layout(root, labels_needed=not has_voc_classes(class_names))
    shipped = _shipped(root, class_names)
    checks, splits = _lists(root, class_names, len(shipped))
    ids = list(dict.fromkeys(image for listed in (*splits.values(), shipped) for image in listed))
    labels_of = label_reader(root, class_names)
    known = {split: frozenset(listed) for split, listed in splits.items()}
    found: Faults = {name: [] for name in ADVICE}
    with ThreadPoolExecutor(threads) as pool:
        looks = pool.map(lambda image: _look(root, image, known, labels_of, len(class_names), quick), ids)
        for done, look in enumerate(looks, start=1):
            for name, text in look:
                found[name].append(text)
            progress(done)
    checks += [
        faults(name, found[name], len(ids), advice, "warning" if name in HARMLESS else "problem")
        for name, advice in ADVICE.items()
    ]
    checks += [_case(ids), _both(splits | ({"train_aug": shipped} if shipped else {}))]
    if has_voc_classes(class_names):
        checks.append(compare_published(root, ids, class_names))
    return [*checks, _preset_splits(root, class_names)]


def _shipped(root: Path, class_names: Sequence[str]) -> list[str]:
    """Images of the shipped train_aug that the folder has, where a run would take that list."""
    if list_file(root, AUGMENTED[0]) or not has_voc_classes(class_names):
        return []
    return [image for image in published_list(AUGMENTED[0]) if image_file(root, image)]


def _shipped_list(there: int) -> Check:
    listed = len(published_list(AUGMENTED[0]))
    count = f"comes with excel: {listed:,} images, {'all' if there == listed else f'{there:,}'} of them here"
    return Check(
        "list train_aug", "ok" if there == listed else "note", count, (), f"right for a part of the data; else {TRAINVAL}"
    )


def _preset_splits(root: Path, class_names: Sequence[str]) -> Check:
    """Whether a run starts with the splits of preset voc, by the run's own check."""
    spec = DatasetSpec()
    try:
        check_voc_splits(root, spec, class_names)
    except DataError as error:
        return Check(PRESET_SPLITS, "note", "a run needs other settings", (), str(error))
    return Check(PRESET_SPLITS, "ok", ", ".join(spec.settings_of_splits))


def _lists(root: Path, class_names: Sequence[str], shipped: int) -> tuple[list[Check], dict[str, list[str]]]:
    """A check of every list file that VOC has, and the ids in those that are there."""
    checks, splits = [], {}
    for split, expected in COUNTS.items():
        if list_file(root, split) is None:
            if split in AUGMENTED and has_voc_classes(class_names):
                checks.append(_shipped_list(shipped))
                continue
            said, advice = f"no {SPLITS}/{split}.txt", ABSENT.get(split, TRAINVAL)
            checks.append(Check(f"list {split}", "note" if split in ABSENT else "problem", said, (), advice))
            continue
        try:
            splits[split] = read_split(root, split, class_names)
        except DataError as error:
            checks.append(Check(f"list {split}", "problem", str(error), (), TRAINVAL))
        else:
            checks.append(counted(f"list {split}", len(splits[split]), expected, " images"))
    return checks, splits


def _look(
    root: Path, image: str, splits: Mapping[str, frozenset[str]], labels_of: LabelReader, classes: int, quick: bool
) -> list[tuple[str, str]]:
    """(check, what is wrong) of one image and its mask."""
    wrong: list[tuple[str, str]] = []
    inside = [split for split, ids in splits.items() if image in ids]
    file = image_file(root, image)
    size = None
    if file is None:
        wrong.append(("images", f"{IMAGES}/{image}.jpg"))
    else:
        try:
            size = _size(root / file, quick)
        except (ImageError, OSError) as error:
            wrong.append(("damaged files", str(error)))
    if inside != ["test"]:
        try:
            labels_of(image)
        except ImageError as error:
            wrong.append(("labels", f"{image}: {error}"))
        augmented = not inside or "train_aug" in inside  # in no list here: of the train_aug that comes with excel
        wrong += _look_at_mask(root, image, augmented, bool(inside), size, classes, quick)
    return wrong


def _look_at_mask(
    root: Path, image: str, augmented: bool, needed: bool, size: tuple[int, int] | None, classes: int, quick: bool
) -> list[tuple[str, str]]:
    """`augmented`: the mask may be SBD's; `needed`: an image of train and val, whose scores need one."""
    folders = (MASKS, EXTRA_MASKS) if augmented else (MASKS,)
    path = next((path for folder in folders if (path := root / folder / f"{image}.png").is_file()), None)
    if path is None:
        return [("masks", f"{folders[-1]}/{image}.png")] if needed else []
    wrong, shown = [], path.relative_to(root).as_posix()
    try:
        with path.open("rb") as file, Image.open(file) as mask:
            if mask.mode not in ("P", "L"):
                wrong.append(("masks are palette PNGs", f"{shown} ({mask.mode})"))
            if size is not None and mask.size != size:
                wrong.append(("masks fit their images", f"{shown}: {mask.size} for an image of {size}, width by height"))
        values = np.zeros(0) if quick else np.unique(load_labels_png(path))
    except (DataError, OSError) as error:
        return [*wrong, ("damaged files", f"{shown}: {error}")]
    odd = [int(value) for value in values if classes < value < 255]
    return [*wrong, ("mask values", f"{shown}: {odd[0]}")] if odd else wrong


def _size(path: Path, quick: bool) -> tuple[int, int]:
    """(width, height), by the file's header alone where `quick`."""
    if not quick:
        height, width, _ = read_image(path).shape
        return width, height
    with path.open("rb") as file, Image.open(file) as image:
        return image.size


def _case(ids: Sequence[str]) -> Check:
    first: dict[str, str] = {}
    clashes = [f"{first[low]} and {name}" for name in ids if first.setdefault(low := name.casefold(), name) != name]
    return faults("ids differ by more than case", clashes, len(ids), "rename one of each: many file systems take them for one")


def _both(splits: Mapping[str, Sequence[str]]) -> Check:
    train = {*splits.get("train", ()), *splits.get("train_aug", ())}
    both = [name for name in splits.get("val", ()) if name in train]
    return faults(
        "val is apart from training", both, len(splits.get("val", ())), "scores on these would be too good: unlist them"
    )
