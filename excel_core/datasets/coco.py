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

from excel_core.datasets.coco_files import annotation_file, check_coco_layout, image_folder, unlabelled_source
from excel_core.datasets.coco_json import Entries, Photo, read_entries
from excel_core.datasets.labels import check_class_names
from excel_core.datasets.listed import Listed, check_splits, read_listed
from excel_core.datasets.manifest import Manifest, check_bad_share, check_image_id
from excel_core.errors import DataError

__all__ = ["labels_by_photo", "read_coco"]

SUFFIXES = (".jpg", ".jpeg", ".png")


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

    class_names are the C foreground classes in class order, to which categories belong by name: their numbers have gaps.
    The images of `unlabelled` splits need no labels: they are those of image_info_NAME.json or instances_NAME.json, or
    without either those of the folder. An image that is missing or damaged, or of another size than the JSON says, which its
    masks would not fit, keeps its row with the reason in `error`; more than max_bad of them (a share in [0, 1], but always at
    least one image) end the reading.

    Raises DataError for a root of another layout, an unknown split or one of two years, a file that `read_entries` refuses,
    an annotation whose category is no class, an id of two images, and for too many bad images. No mask survives parsing.
    """
    check_class_names(class_names)
    check_splits(splits)
    check_coco_layout(root)
    listed: list[Listed] = []
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
    manifest = _with_sizes_checked(read_listed(root, listed, max_bad=max_bad, threads=threads), photos, max_bad)
    manifest.attrs["left_out"] = left_out
    return manifest


def labels_by_photo(entries: Entries, class_names: Sequence[str], file: str) -> dict[int, tuple[str, ...]]:
    """Number of each image that has annotations, in the file's order → names of their categories in class order."""
    found: dict[int, set[int]] = {number: set() for number in entries.photos}
    for entry in entries.annotations:
        found[entry["image_id"]].add(entry["category_id"])
    used = {entries.categories[category] for categories in found.values() for category in categories}
    unknown = sorted(used.difference(class_names))
    if unknown:
        raise DataError(
            f"{file}: annotations use the category {unknown[0]!r}, which is no class; valid: {', '.join(class_names)}; "
            "name a class file that has it: --set dataset.prompts=FILE.yaml"
        )
    rank = {name: position for position, name in enumerate(class_names)}
    return {
        number: tuple(sorted((entries.categories[category] for category in categories), key=rank.__getitem__))
        for number, categories in found.items()
        if categories
    }


@dataclass(frozen=True)
class _Labelled:
    """A split with annotations: its images that have some, their entries by path, and how many have none."""

    listed: list[Listed]
    photos: dict[str, Photo]
    left_out: int


def _labelled(root: Path, split: str, class_names: Sequence[str]) -> _Labelled:
    file = annotation_file(root, split)
    entries = read_entries(file)
    labels = labels_by_photo(entries, class_names, file.name)
    if not labels:
        raise DataError(f"{file}: no image has an annotation; use a split that has, or list this one in dataset.test_splits")
    folder = image_folder(root, file.stem.partition("_")[2], [entries.photos[number].file_name for number in labels])
    photos = {f"{folder}/{entries.photos[number].file_name}": entries.photos[number] for number in labels}
    listed = [
        Listed(photo.id, split, image, names) for (image, photo), names in zip(photos.items(), labels.values(), strict=True)
    ]
    return _Labelled(listed, photos, len(entries.photos) - len(labels))


def _unlabelled(root: Path, split: str) -> list[Listed]:
    source = unlabelled_source(root, split)
    if source.is_dir():
        folder, names = source.relative_to(root).as_posix(), sorted(path.name for path in source.iterdir())
        names = [name for name in names if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")]
    else:
        names = [photo.file_name for photo in read_entries(source, annotated=False).photos.values()]
        folder = image_folder(root, source.stem.removeprefix("image_info_").removeprefix("instances_"), names)
    if not names:
        raise DataError(f"{source}: split {split!r} has no image")
    return [Listed(check_image_id(Path(name).stem, f"{source.name}: {name}"), split, f"{folder}/{name}") for name in names]


def _check_ids(listed: Sequence[Listed]) -> None:
    """Every later store knows an image by its id, which two images must not share."""
    known: dict[str, str] = {}
    for row in listed:
        other = known.setdefault(row.id, row.image)
        if other != row.image:
            raise DataError(f"{other} and {row.image} would have the same id, {row.id}; rename one, in its JSON as well")


def _with_sizes_checked(manifest: Manifest, photos: dict[str, Photo], max_bad: float) -> Manifest:
    """The manifest with the images whose masks would not fit as bad ones."""
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
