"""PASCAL VOC 2012 as downloaded, with SBD's augmented masks: counts, missing and mismatched files, what to download, and
whether a run with the preset's settings starts."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.doctor.checks import TURNED, Check, Progress, State, check_count, check_failures
from excel_core.datasets.doctor.voc_image import EXTRA_MASKS, look_at_voc_image
from excel_core.datasets.manifest import clashing_ids, max_bad_images
from excel_core.datasets.masks import NO_CLASS
from excel_core.datasets.published_voc import AUGMENTED, has_voc_classes, published_labels, published_list
from excel_core.datasets.voc import (
    SPLITS,
    check_voc_layout,
    check_voc_splits,
    image_file,
    label_reader,
    list_file,
    read_split,
)
from excel_core.errors import DataError, ImageError

__all__ = ["PRESET_SPLITS", "examine_voc"]

PUBLISHED_LABELS = "published labels"  # the check that compares them with the folder's own
PRESET_SPLITS = "splits of preset voc"  # the check whose note says that a run needs other settings

COUNTS = {"train": 1464, "val": 1449, "test": 1456, "train_aug": 10_582}
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
    "objects": "without an object of any class nothing can be learnt from an image, so that a run skips it: unlist it",
    "masks": f"needed for scores alone: {TRAINVAL}; those of train_aug are SBD's {EXTRA_MASKS}/",
    "damaged files": "download them again",
    "masks fit their images": "masks of another size cannot be scored: take both from the same download",
    "mask values": "labels are 0 to the number of classes, and 255: take the masks as downloaded",
    "masks hold classes": NO_CLASS,
    "masks hold labelled classes": (
        "the image-level labels lack classes of these masks: the numbers may be shifted (0 is background, 1 the first class), "
        "or the classes in another order"
    ),
    "masks are palette PNGs": "excel reads VOC's colours too; other tools do not. Save them as palette PNGs in VOC's order",
    "EXIF orientation": TURNED,
}
HARMLESS = ("masks", "masks hold classes", "masks hold labelled classes", "masks are palette PNGs", "EXIF orientation")
MIN_OTHER_CLASSES = 0.2  # share of images; in fewer, masks and labels disagree over single objects, as VOC's own do


def examine_voc(
    root: Path, class_names: Sequence[str], *, quick: bool = False, progress: Progress = lambda done: None, threads: int = 8
) -> list[Check]:
    """Look at the data set under root → checks, in the order to show them. `quick` reads headers alone and decodes nothing.
    DataError for a folder of another layout."""
    check_voc_layout(root, labels_needed=not has_voc_classes(class_names))
    shipped = _shipped(root, class_names)
    checks, splits = _check_lists(root, class_names, len(shipped))
    ids = list(dict.fromkeys(image for listed in (*splits.values(), shipped) for image in listed))
    labels_of = label_reader(root, class_names)  # as a run reads them
    known = {split: frozenset(listed) for split, listed in splits.items()}
    failures: dict[str, list[str]] = {name: [] for name in ADVICE}
    with ThreadPoolExecutor(threads) as pool:
        looks = pool.map(lambda image: look_at_voc_image(root, image, known, labels_of, class_names, quick), ids)
        for done, failures_of_image in enumerate(looks, start=1):
            for name, failure in failures_of_image:
                failures[name].append(failure)
            progress(done)
    harmless = {
        *HARMLESS,
        *(() if len(failures["objects"]) > max_bad_images(len(ids), DatasetSpec().max_bad) else ("objects",)),
    }
    if len(failures["masks hold labelled classes"]) <= MIN_OTHER_CLASSES * len(ids):
        failures["masks hold labelled classes"] = []
    for name, advice in ADVICE.items():
        checks.append(check_failures(name, failures[name], len(ids), advice, "warning" if name in harmless else "problem"))
    checks += [_check_case(ids), _check_overlap(splits | ({"train_aug": shipped} if shipped else {}))]
    if has_voc_classes(class_names):
        checks.append(_compare_published(root, ids, class_names))
    return [*checks, _check_preset_splits(root, class_names)]


def _shipped(root: Path, class_names: Sequence[str]) -> list[str]:
    """Images of the shipped train_aug that the folder has, where a run would take that list."""
    if list_file(root, AUGMENTED[0]) or not has_voc_classes(class_names):
        return []
    return [image for image in published_list(AUGMENTED[0]) if image_file(root, image)]


def _check_shipped_list(present: int) -> Check:
    """The check of train_aug where the folder has no such list: `present` images of the shipped one are there."""
    listed = len(published_list(AUGMENTED[0]))
    count = f"comes with excel: {listed:,} images, {'all' if present == listed else f'{present:,}'} of them here"
    state: State = "ok" if present == listed else "note"
    return Check("list train_aug", state, count, (), f"right for a part of the data; else {TRAINVAL}")


def _check_preset_splits(root: Path, class_names: Sequence[str]) -> Check:
    """Whether a run starts with the splits of preset voc, by the run's own check."""
    spec = DatasetSpec()
    try:
        check_voc_splits(root, spec, class_names)
    except DataError as error:
        return Check(PRESET_SPLITS, "note", "a run needs other settings", (), str(error))
    return Check(PRESET_SPLITS, "ok", ", ".join(spec.settings_of_splits))


def _check_lists(root: Path, class_names: Sequence[str], shipped: int) -> tuple[list[Check], dict[str, list[str]]]:
    """A check of every list file that VOC has, and the ids of each list that is there. `shipped`: so many images of the shipped
    train_aug are in the folder."""
    checks, splits = [], {}
    for split, expected in COUNTS.items():
        if list_file(root, split) is None:
            if split in AUGMENTED and has_voc_classes(class_names):
                checks.append(_check_shipped_list(shipped))
                continue
            state: State = "note" if split in ABSENT else "problem"
            checks.append(Check(f"list {split}", state, f"no {SPLITS}/{split}.txt", (), ABSENT.get(split, TRAINVAL)))
            continue
        try:
            splits[split] = read_split(root, split, class_names)
        except DataError as error:
            checks.append(Check(f"list {split}", "problem", str(error), (), TRAINVAL))
        else:
            checks.append(check_count(f"list {split}", len(splits[split]), expected, " images"))
    return checks, splits


def _check_case(ids: Sequence[str]) -> Check:
    clashes = [f"{first} and {second}" for first, second in clashing_ids(ids)]
    advice = "rename one of each: many file systems take them for one"
    return check_failures("ids differ by more than case", clashes, len(ids), advice)


def _check_overlap(splits: Mapping[str, Sequence[str]]) -> Check:
    train = {*splits.get("train", ()), *splits.get("train_aug", ())}
    val = splits.get("val", ())
    in_both = [image_id for image_id in val if image_id in train]
    return check_failures("val is apart from training", in_both, len(val), "scores on these would be too good: unlist them")


def _compare_published(root: Path, ids: Sequence[str], class_names: Sequence[str]) -> Check:
    """How often the image-level labels that excel ships for VOC 2012 differ from the data folder's own (labels.csv, else
    Annotations), for those of `ids` that both know. The check's state is ok or note, since a run takes one of them."""
    table = (root / "labels.csv").is_file()
    source = "labels.csv" if table else "Annotations"
    published, labels_of = published_labels(), label_reader(root, class_names, "folder")
    compared, different = 0, []
    for image in ids:
        if image not in published:
            continue
        try:
            labels = labels_of(image)
        except ImageError:
            continue  # the check "labels" says it, where a run would read them
        compared += 1
        if set(labels) != set(published[image]):
            different.append(f"{image}: published {_words(published[image])}; {source} {_words(labels)}")
    if not compared:
        return Check(PUBLISHED_LABELS, "ok", f"no image has labels in {source} as well")
    taken = "labels.csv" if table else "the published ones"
    switch = "move it away for the published ones" if table else "--set dataset.labels=folder for those of Annotations"
    advice = f"they differ from {source}; a run takes {taken}; {switch}"
    return check_failures(PUBLISHED_LABELS, different, compared, advice, "note")


def _words(labels: Sequence[str]) -> str:
    return " ".join(labels) or "none"
