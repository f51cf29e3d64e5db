"""One image of PASCAL VOC 2012 and its mask, as the data doctor looks at them: what is wrong with each of the two, and whether
they fit each other and the image-level labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from excel_core.datasets.doctor.checks import ImageLook, look_at_image
from excel_core.datasets.images import read_header, size_tells_turn
from excel_core.datasets.label_files import label_file
from excel_core.datasets.masks import holds_no_class
from excel_core.datasets.palette import IGNORE, LabelMapFile, read_label_map
from excel_core.datasets.voc import IMAGES, LabelReader, image_file
from excel_core.errors import DataError, ImageError

__all__ = ["EXTRA_MASKS", "look_at_voc_image"]

MASKS, EXTRA_MASKS = "SegmentationClass", "SegmentationClassAug"
INDEXED = ("P", "L", "1")  # Pillow's modes of a file whose values are labels


def look_at_voc_image(
    root: Path, image: str, splits: Mapping[str, frozenset[str]], labels_of: LabelReader, names: Sequence[str], quick: bool
) -> list[tuple[str, str]]:
    """(name of the check, what is wrong), for everything that is wrong with one image and its mask. `splits`: the ids of each
    list; `names`: the C foreground classes; `quick`: headers alone are read."""
    failures: list[tuple[str, str]] = []
    splits_of_image = [split for split, ids in splits.items() if image in ids]
    file = image_file(root, image)
    look = None
    if file is None:
        failures.append(("images", f"{IMAGES}/{image}.jpg"))
    else:
        try:
            look = look_at_image(root, file, quick)
        except (ImageError, OSError) as error:
            failures.append(("damaged files", str(error)))
    if splits_of_image == ["test"]:  # VOC's server has its labels and masks
        return failures
    labels = None
    try:
        labels = labels_of(image)
        failures += [] if labels else [("objects", image)]
    except ImageError as error:
        failures.append(("labels", f"{image}: {error}"))
    # An image in no list of the folder is one of the train_aug that comes with excel: no mask is needed, SBD's may be there.
    augmented = not splits_of_image or "train_aug" in splits_of_image
    values = None if labels is None else frozenset(names.index(name) + 1 for name in labels)
    return failures + _look_at_mask(root, image, augmented, bool(splits_of_image), look, len(names), values, quick)


def _look_at_mask(
    root: Path,
    image: str,
    augmented: bool,
    needed: bool,
    look: ImageLook | None,
    classes: int,
    labelled: frozenset[int] | None,
    quick: bool,
) -> list[tuple[str, str]]:
    """As `look_at_voc_image`, of the mask. `augmented`: it may be SBD's; `needed`: without it the image cannot be scored;
    `look`: the image's size and orientation, `labelled`: the values of its classes, None where they are not known."""
    folders = (MASKS, EXTRA_MASKS) if augmented else (MASKS,)
    candidates = [label_file(root / folder, image) for folder in folders]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return [("masks", f"{folders[-1]}/{image}.png")] if needed else []
    name = path.relative_to(root).as_posix()
    failures: list[tuple[str, str]] = []
    try:
        mask = read_header(path)
        if look is not None:
            failures += _misfits(name, (mask.height, mask.width), look)
        if mask.mode not in INDEXED:
            failures.append(("masks are palette PNGs", f"{name} ({mask.mode})"))
        return failures if quick else failures + _odd_values(name, mask.mode, read_label_map(path, classes), classes, labelled)
    except (DataError, OSError) as error:
        return [*failures, ("damaged files", f"{name}: {error}")]


def _misfits(name: str, size: tuple[int, int], image: ImageLook) -> list[tuple[str, str]]:
    """As `look_at_voc_image`, of a mask of this size, (height, width), and its image."""
    if size != (image.height, image.width):
        mask_size, image_size = (size[1], size[0]), (image.width, image.height)
        upright = f"; EXIF orientation {image.orientation}: drawn for the turned photo" if mask_size == image_size[::-1] else ""
        turned = upright if size_tells_turn(image.orientation, image.height, image.width) else ""
        return [("masks fit their images", f"{name}: {mask_size} for an image of {image_size}, width by height{turned}")]
    if image.orientation > 1 and not size_tells_turn(image.orientation, image.height, image.width):
        return [("EXIF orientation", f"{name}: orientation {image.orientation}")]
    return []


def _odd_values(
    name: str, mode: str, file: LabelMapFile, classes: int, labelled: frozenset[int] | None
) -> list[tuple[str, str]]:
    """As `look_at_voc_image`, of a decoded mask."""
    failures: list[tuple[str, str]] = []
    if file.by_colour and mode in INDEXED:
        failures.append(("masks are palette PNGs", f"{name} (VOC's colours under other numbers)"))
    if holds_no_class(file.labels):
        failures.append(("masks hold classes", name))
    values = [value for value in np.unique(file.labels).tolist() if 0 < value < IGNORE]
    odd = [value for value in values if value > classes]
    others = [value for value in values if value <= classes and labelled is not None and value not in labelled]
    if others:
        failures.append(("masks hold labelled classes", f"{name}: {', '.join(map(str, others))}"))
    return [*failures, ("mask values", f"{name}: {odd[0]}")] if odd else failures
