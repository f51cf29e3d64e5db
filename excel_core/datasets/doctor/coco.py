"""COCO as downloaded: annotation files that can be read, images that are there and fit them, masks that can be drawn."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from excel_core.datasets.coco import check_coco_layout, image_folder
from excel_core.datasets.coco_json import Photo
from excel_core.datasets.coco_masks import MISSING, CocoMasks, read_masks
from excel_core.datasets.doctor.checks import TURNED, Check, Progress, check_count, check_failures, look_at_image
from excel_core.datasets.images import size_tells_turn
from excel_core.errors import DataError, ImageError

__all__ = ["examine_coco"]

COUNTS = {"train2014": (82_783, 82_081), "val2014": (40_504, 40_137)}  # images, those with an annotation
FILES = "get annotations_trainval2014.zip from cocodataset.org and unpack it here"
UNKNOWN = (
    "an object has no segmentation, as in an export of boxes alone, or none that can be drawn: a run trains on such images and "
    "leaves them out of scores. Export polygons or RLE to score them"
)
EXIF = "EXIF orientation"
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
    broken = [f"annotation {number}: {problem}" for number, problem in masks.problems.items() if problem != MISSING.problem]
    advice = "what is broken is left out of the masks, the labels count; COCO's own files have none"
    return [
        *counts,
        check_failures(f"{split}: masks", broken, regions, advice, "warning"),
        check_failures(f"{split}: images with segmentations", sorted(masks.unknown), annotated, UNKNOWN, "warning"),
    ]


def _images(root: Path, split: str, photos: Sequence[Photo], quick: bool, threads: int, progress: Progress) -> list[Check]:
    advice = IMAGES.format(split)
    try:
        folder = image_folder(root, split, [photo.file_name for photo in photos])
    except DataError as error:
        return [Check(f"{split}: files", "problem", str(error), (), advice)]
    failures: dict[str, list[str]] = {name: [] for name in ("files", "damaged files", "masks fit their images", EXIF)}
    with ThreadPoolExecutor(threads) as pool:
        looks = pool.map(lambda photo: _look(root, f"{folder}/{photo.file_name}", photo, quick), photos)
        for done, failure in enumerate(looks, start=1):
            if failure is not None:
                failures[failure[0]].append(failure[1])
            progress(done)
    advices = (advice, "download them again", "take images and annotations from the same download", TURNED)
    return [
        check_failures(f"{split}: {name}", failures[name], len(photos), advice, "warning" if name == EXIF else "problem")
        for name, advice in zip(failures, advices, strict=True)
    ]


def _look(root: Path, image: str, photo: Photo, quick: bool) -> tuple[str, str] | None:
    """(name of the check, what is wrong) of an image whose masks are drawn for `photo`; None for nothing."""
    if not (root / image).is_file():
        return "files", photo.file_name
    try:
        look = look_at_image(root, image, quick)
    except (ImageError, OSError) as error:
        return "damaged files", str(error)
    size = look.height, look.width
    if size != (photo.height, photo.width):
        expected = photo.height, photo.width
        return "masks fit their images", f"{photo.file_name}: {size} for masks of {expected}, height by width"
    if look.orientation > 1 and not size_tells_turn(look.orientation, *size):
        return EXIF, f"{photo.file_name}: orientation {look.orientation}"
    return None
