"""COCO as downloaded: annotation files that can be read, images that are there and fit them, masks that can be drawn."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from excel_core.datasets.coco_files import check_coco_layout, image_folder
from excel_core.datasets.coco_json import Photo
from excel_core.datasets.coco_mask_reader import CocoMasks, read_masks
from excel_core.datasets.doctor.checks import Check, Progress, counted, faults
from excel_core.datasets.images import read_image
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
    before = 0
    for file in files:
        split = file.stem.partition("_")[2]
        try:
            masks = read_masks(file, tuple(class_names))
        except DataError as error:
            checks.append(Check(f"{split}: annotations", "problem", str(error), (), FILES))
            continue
        checks += _annotations(split, masks)
        checks += _images(root, split, list(masks.photos.values()), quick, threads, partial(_further, progress, before))
        before += len(masks.photos)
    return checks


def _further(progress: Progress, before: int, done: int) -> None:
    progress(before + done)


def _annotations(split: str, masks: CocoMasks) -> list[Check]:
    images, annotated = len(masks.photos), len(masks.regions)
    regions = sum(map(len, masks.regions.values()))
    if split in COUNTS:
        counts = [
            counted(f"{split}: images", images, COUNTS[split][0]),
            counted(f"{split}: annotated", annotated, COUNTS[split][1]),
        ]
    else:
        counts = [Check(f"{split}: images", "ok", f"{images:,}"), Check(f"{split}: annotated", "ok", f"{annotated:,}")]
    broken = [f"annotation {number}: {problem}" for number, problem in masks.problems.items()]
    advice = "left out of the masks, their labels count; COCO's own files have none"
    return [*counts, faults(f"{split}: masks", broken, regions, advice, "warning")]


def _images(root: Path, split: str, photos: Sequence[Photo], quick: bool, threads: int, progress: Progress) -> list[Check]:
    advice = IMAGES.format(split)
    try:
        folder = root / image_folder(root, split, [photo.file_name for photo in photos])
    except DataError as error:
        return [Check(f"{split}: files", "problem", str(error), (), advice)]
    missing, damaged, other = [], [], []
    with ThreadPoolExecutor(threads) as pool:
        sizes = pool.map(lambda photo: _size(folder / photo.file_name, quick), photos)
        for done, (photo, found) in enumerate(zip(photos, sizes, strict=True), start=1):
            if found is None:
                missing.append(photo.file_name)
            elif isinstance(found, str):
                damaged.append(found)
            elif found != (photo.height, photo.width):
                other.append(f"{photo.file_name}: {found} for masks of {(photo.height, photo.width)}, height by width")
            progress(done)
    return [
        faults(f"{split}: files", missing, len(photos), advice),
        faults(f"{split}: damaged files", damaged, len(photos), "download them again"),
        faults(f"{split}: masks fit their images", other, len(photos), "take images and annotations from the same download"),
    ]


def _size(path: Path, quick: bool) -> tuple[int, int] | str | None:
    """(height, width) of an image, what is wrong with it, or None where it is not there."""
    if not path.is_file():
        return None
    try:
        if not quick:
            height, width, _ = read_image(path).shape
            return height, width
        with path.open("rb") as file, Image.open(file) as image:
            return image.size[1], image.size[0]
    except (ImageError, OSError) as error:
        return str(error)
