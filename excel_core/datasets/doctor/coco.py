"""COCO as downloaded: annotation files that can be read, images that are there and fit them, masks that can be drawn."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from excel_core.datasets.coco import check_coco_layout, image_folder
from excel_core.datasets.coco_json import Photo
from excel_core.datasets.coco_masks import CocoMasks, read_masks
from excel_core.datasets.doctor.checks import Check, Progress, check_count, check_failures, size_of_image
from excel_core.errors import DataError, ImageError

__all__ = ["examine_coco"]

COUNTS = {"train2014": (82_783, 82_081), "val2014": (40_504, 40_137)}  # images, those with an annotation
FILES = "get annotations_trainval2014.zip from cocodataset.org and unpack it here"
IMAGES = "get {0}.zip from cocodataset.org and unpack it here, as {0}/ or images/{0}/"


def examine_coco(
    root: Path, class_names: Sequence[str], *, quick: bool = False, progress: Progress = lambda done: None, threads: int = 8
) -> list[Check]:
    """Look at every instances_*.json under root and its images → checks. `quick` reads the images' headers alone. DataError
    for a folder of another layout."""
    check_coco_layout(root)
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        return [Check("annotation files", "problem", "no annotations/instances_*.json", (), FILES)]
    checks: list[Check] = []
    images_before = 0  # in the files that were looked at already
    for file in files:
        split = file.stem.partition("_")[2]
        try:
            masks = read_masks(file, tuple(class_names))
        except DataError as error:
            checks.append(Check(f"{split}: annotations", "problem", str(error), (), FILES))
            continue
        checks += _annotations(split, masks)
        report = partial(_report, progress, images_before)
        checks += _images(root, split, list(masks.photos.values()), quick, threads, report)
        images_before += len(masks.photos)
    return checks


def _report(progress: Progress, images_before: int, done: int) -> None:
    progress(images_before + done)


def _annotations(split: str, masks: CocoMasks) -> list[Check]:
    images, annotated = len(masks.photos), len(masks.regions)
    regions = sum(map(len, masks.regions.values()))
    if split in COUNTS:
        counts = [
            check_count(f"{split}: images", images, COUNTS[split][0]),
            check_count(f"{split}: annotated", annotated, COUNTS[split][1]),
        ]
    else:
        counts = [Check(f"{split}: images", "ok", f"{images:,}"), Check(f"{split}: annotated", "ok", f"{annotated:,}")]
    broken = [f"annotation {number}: {problem}" for number, problem in masks.problems.items()]
    advice = "left out of the masks, their labels count; COCO's own files have none"
    return [*counts, check_failures(f"{split}: masks", broken, regions, advice, "warning")]


def _images(root: Path, split: str, photos: Sequence[Photo], quick: bool, threads: int, progress: Progress) -> list[Check]:
    advice = IMAGES.format(split)
    try:
        folder = root / image_folder(root, split, [photo.file_name for photo in photos])
    except DataError as error:
        return [Check(f"{split}: files", "problem", str(error), (), advice)]
    missing, damaged, misfits = [], [], []
    with ThreadPoolExecutor(threads) as pool:
        sizes = pool.map(lambda photo: _size(folder / photo.file_name, quick), photos)
        for done, (photo, size) in enumerate(zip(photos, sizes, strict=True), start=1):
            if size is None:
                missing.append(photo.file_name)
            elif isinstance(size, str):
                damaged.append(size)
            elif size != (photo.height, photo.width):
                misfits.append(f"{photo.file_name}: {size} for masks of {(photo.height, photo.width)}, height by width")
            progress(done)
    return [
        check_failures(f"{split}: files", missing, len(photos), advice),
        check_failures(f"{split}: damaged files", damaged, len(photos), "download them again"),
        check_failures(
            f"{split}: masks fit their images", misfits, len(photos), "take images and annotations from the same download"
        ),
    ]


def _size(path: Path, quick: bool) -> tuple[int, int] | str | None:
    """(height, width) of an image, what is wrong with it, or None where it is not there."""
    if not path.is_file():
        return None
    try:
        return size_of_image(path, quick)
    except (ImageError, OSError) as error:
        return str(error)
