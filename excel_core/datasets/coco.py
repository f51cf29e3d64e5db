"""A folder with MS COCO as downloaded → the manifest: which images, of which split, with which image-level labels.

annotations/instances_NAME.json   NAME: train2014, val2014, train2017, val2017, or any other
annotations/image_info_NAME.json  images of a split without labels
NAME/FILE.jpg                     or images/NAME/FILE.jpg

A split is a NAME, or a NAME without its year where only one year is there: `train` is train2014 or train2017. An image's
labels are the categories of its annotations, crowds included. As published, images without any annotation are left out:
82,081 of train2014's 82,783 remain, and 40,137 of val2014's 40,504.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.coco_json import Entries, Photo, read_entries
from excel_core.datasets.labels import check_class_names
from excel_core.datasets.manifest import (
    ListedImage,
    Manifest,
    build_manifest,
    check_bad_share,
    check_image_id,
    check_split_names,
)
from excel_core.errors import DataError, and_more

__all__ = [
    "COCO_SOURCES",
    "annotation_file",
    "check_coco_layout",
    "check_coco_splits",
    "image_folder",
    "labels_by_photo",
    "read_coco",
    "unlabelled_source",
]

YEARS = ("2014", "2017")
FOLDERS = (*(f"{name}{year}" for year in YEARS for name in ("train", "val", "test")), "test2015", "unlabeled2017")
COCO_SOURCES = ("annotations", "images", *FOLDERS)  # all that is looked at under the root
SUFFIXES = (".jpg", ".jpeg", ".png")
SETTING = {"train": "dataset.train_split={0} --set 'dataset.seed_splits=[{0}]'", "test": "dataset.test_splits=[{}]"}
MAX_PROBED = 20  # files of a split by which its folder is found
MAX_ENTRIES = 8  # of a wrong folder, that an error names


def read_coco(
    root: Path,
    splits: Sequence[str],
    class_names: Sequence[str],
    *,
    unlabelled: Sequence[str] = (),
    max_bad: float = 0.01,
    threads: int = 4,
) -> Manifest:
    """Read the data set under root → Manifest, rows in the order of splits and of their files; an image's id is its file's
    name without suffix. `manifest.attrs["left_out"]` counts, by split, the images without any annotation.

    class_names are the C foreground classes in class order; categories belong to them by name. The images of `unlabelled`
    splits need no labels: they are those of image_info_NAME.json or instances_NAME.json, else those of the folder. An image
    that is missing, damaged, or of another size than the JSON says keeps its row with the reason in `error`; more than max_bad
    of them (a share in [0, 1], but always at least one image) end the reading.

    Raises DataError for a root of another layout, an unknown split or one of two years, a file that `read_entries` refuses,
    an annotation whose category is no class, an id of two images, and for too many bad images. Keeps no mask.
    """
    check_class_names(class_names)
    check_split_names(splits)
    check_coco_layout(root)
    listed: list[ListedImage] = []
    photos: dict[str, Photo] = {}  # of labelled splits, by path
    left_out: dict[str, int] = {}
    for split in splits:
        if split in unlabelled:
            listed += _unlabelled(root, split)
            continue
        labelled = _labelled(root, split, class_names)
        listed += labelled.listed
        photos |= labelled.photos
        left_out[split] = labelled.left_out
    _check_ids(listed)
    manifest = _with_sizes_checked(build_manifest(root, listed, max_bad=max_bad, threads=threads), photos, max_bad)
    manifest.attrs["left_out"] = left_out
    return manifest


def labels_by_photo(entries: Entries, class_names: Sequence[str], file: str) -> dict[int, tuple[str, ...]]:
    """Number of each image that has annotations, in the file's order → names of their categories in class order."""
    # Classes are matched by name: COCO's category numbers have gaps, 90 is the last of 80.
    categories_of: dict[int, set[int]] = {number: set() for number in entries.photos}
    for entry in entries.annotations:
        categories_of[entry["image_id"]].add(entry["category_id"])
    used_names = {entries.categories[entry["category_id"]] for entry in entries.annotations}
    unknown = sorted(used_names.difference(class_names))
    if unknown:
        raise DataError(
            f"{file}: annotations use the category {unknown[0]!r}, which is no class; valid: {', '.join(class_names)}; "
            "name a class file that has it: --set dataset.prompts=FILE.yaml"
        )
    rank = {name: position for position, name in enumerate(class_names)}
    return {
        number: tuple(sorted((entries.categories[category] for category in categories), key=rank.__getitem__))
        for number, categories in categories_of.items()
        if categories
    }


@dataclass(frozen=True)
class _Labelled:
    """A split with annotations: its images that have some, their entries by path, and how many have none."""

    listed: list[ListedImage]
    photos: dict[str, Photo]
    left_out: int


def _labelled(root: Path, split: str, class_names: Sequence[str]) -> _Labelled:
    file = annotation_file(root, split)
    entries = read_entries(file)
    labels = labels_by_photo(entries, class_names, file.name)
    if not labels:
        raise DataError(f"{file}: no image has an annotation; use a split that has, or list this one in dataset.test_splits")
    file_names = [entries.photos[number].file_name for number in labels]
    folder = image_folder(root, file.stem.partition("_")[2], file_names)
    photos: dict[str, Photo] = {}
    listed: list[ListedImage] = []
    for number, names in labels.items():
        photo = entries.photos[number]
        image = f"{folder}/{photo.file_name}"
        photos[image] = photo
        listed.append(ListedImage(photo.id, split, image, names))
    return _Labelled(listed, photos, len(entries.photos) - len(labels))


def _unlabelled(root: Path, split: str) -> list[ListedImage]:
    source = unlabelled_source(root, split)
    if source.is_dir():
        folder, files = source.relative_to(root).as_posix(), sorted(path.name for path in source.iterdir())
        # macOS leaves ._FILE.jpg beside FILE.jpg on other file systems.
        names = [name for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
    else:
        names = [photo.file_name for photo in read_entries(source, annotated=False).photos.values()]
        folder = image_folder(root, source.stem.removeprefix("image_info_").removeprefix("instances_"), names)
    if not names:
        raise DataError(f"{source}: split {split!r} has no image")
    return [ListedImage(check_image_id(Path(name).stem, f"{source.name}: {name}"), split, f"{folder}/{name}") for name in names]


def _check_ids(listed: Sequence[ListedImage]) -> None:
    """Every later store knows an image by its id, which two images must not share."""
    image_of: dict[str, str] = {}
    for row in listed:
        first_image = image_of.setdefault(row.id, row.image)
        if first_image != row.image:
            raise DataError(f"{first_image} and {row.image} would have the same id, {row.id}; rename one, in its JSON as well")


def _with_sizes_checked(manifest: Manifest, photos: dict[str, Photo], max_bad: float) -> Manifest:
    """Mark images of another size than their JSON entry says as bad: their masks would not fit."""
    sizes = zip(manifest["image"], manifest["height"], manifest["width"], strict=True)
    for position, (image, height, width) in enumerate(sizes):
        photo = photos.get(image)
        if photo is not None and (photo.height, photo.width) != (height, width) and not manifest.loc[position, "error"]:
            manifest.loc[position, "error"] = (
                f"{photo.file_name}: {width} wide and {height} high, but its masks are drawn for the "
                f"{photo.width} by {photo.height} that the JSON says; put the original file there"
            )
    check_bad_share(manifest, max_bad)
    return manifest


def check_coco_layout(root: Path) -> None:
    """Raise DataError, saying what was looked for, what is there and what to pass, unless root has annotations/."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; pass the folder that holds annotations/ and train2014/ or images/")
    if (root / "annotations").is_dir():
        return
    below = [path.parent for depth in ("*", "*/*") for path in sorted(root.glob(f"{depth}/annotations")) if path.is_dir()]
    above = [parent for parent in list(root.resolve().parents)[:2] if (parent / "annotations").is_dir()]
    nearest = [*below, *above]
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    raise DataError(
        f"{root}: not COCO as downloaded: looked for annotations/instances_*.json; "
        f"found {and_more(names, MAX_ENTRIES) or 'an empty folder'}" + (f"; pass {nearest[0]} instead" if nearest else "")
    )


def check_coco_splits(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> None:
    """DataError, naming the setting, for a split without its file; reads none."""
    for split, setting in spec.settings_of_splits.items():
        find_source = annotation_file if split in spec.labelled_splits else unlabelled_source
        try:
            find_source(root, split)
        except DataError as error:
            raise DataError(f"{setting.partition('=')[0]}: {error}") from None


def annotation_file(root: Path, split: str) -> Path:
    """The file with a split's annotations: instances_SPLIT.json, or that of the only year that is there. DataError where
    there is none, or one of each year."""

    def file_of(name: str) -> Path:
        return root / "annotations" / f"instances_{name}.json"

    name = _with_year(root, split, [name for name in _names(split) if file_of(name).is_file()])
    if name is None:
        valid = ", ".join(sorted(path.stem.partition("_")[2] for path in (root / "annotations").glob("instances_*.json")))
        expected = " or ".join(f"annotations/instances_{name}.json" for name in _names(split))
        raise DataError(f"unknown split {split!r}: {root} has no {expected}; it has: {valid or 'none'}")
    return file_of(name)


def unlabelled_source(root: Path, split: str) -> Path:
    """What names the images of a split without labels: image_info_SPLIT.json, else instances_SPLIT.json, else the folder of
    the images; or those of the only year that is there. DataError as in `annotation_file`."""

    def sources(name: str) -> list[Path]:
        files = [root / "annotations" / f"{kind}_{name}.json" for kind in ("image_info", "instances")]
        return [path for path in files if path.is_file()] + [root / folder for folder in _folders(root, name)]

    name = _with_year(root, split, [name for name in _names(split) if sources(name)])
    if name is None:
        expected = f"annotations/image_info_{split}.json, images/{split}/"
        raise DataError(f"unknown split {split!r}: {root} has neither of {expected}, of no year")
    return sources(name)[0]


def image_folder(root: Path, name: str, files: Sequence[str]) -> str:
    """The folder under root that holds a split's `files`: NAME/ or images/NAME/, else any other known folder that has some of
    the first files. DataError where there is none."""
    named = _folders(root, name)
    inner = sorted(f"images/{path.name}" for path in (root / "images").glob("*/"))
    # A folder of the right name may be empty, so each candidate is asked for files. A part of COCO may lack any single one.
    for folder in (*named, *FOLDERS, *inner, "images"):
        if any((root / folder / file).is_file() for file in files[:MAX_PROBED]):
            return folder
    if not named:
        raise DataError(f"{root}: no folder holds the images of {name}; put them into images/{name}/")
    return named[0]


def _names(split: str) -> list[str]:
    """`train` → train, train2014, train2017. DataError for what is no file's name."""
    if Path(split).name != split:
        raise DataError(f"unknown split {split!r}: a split is a name such as train2014")
    return [split, *(split + year for year in YEARS)]


def _with_year(root: Path, split: str, names: list[str]) -> str | None:
    """Choose among the names of a split that have a file: the split's own, else the only one; None where there is none."""
    if len(names) > 1 and split not in names:
        setting = SETTING.get(split, "dataset.val_splits=[{}]").format(names[0])
        raise DataError(f"{root}: split {split!r} is {' and '.join(names)}; say which one, e.g. --set {setting}")
    return names[0] if names else None


def _folders(root: Path, name: str) -> list[str]:
    """Folders of images under a split's name; test-dev2017 is a part of test2017."""
    names = dict.fromkeys((name, name.replace("-dev", "")))
    candidates = [folder for folder in names if folder in FOLDERS] + [f"images/{folder}" for folder in names]
    return [folder for folder in candidates if (root / folder).is_dir()]
