"""A folder of one's own photos → the manifest, with image-level labels from a table or from the folders' names.

labels.csv beside the photos     image,labels[,split]      see labels.py; split is train where it is left out
or one folder per class          dog/*.jpg  sofa/*.jpg     a photo that is in several of them has all of their classes

In the table photos are named by their path inside the folder, with or without the suffix. An id is a file's name without its
suffix, so two photos of one name are an error, but for byte-identical copies in several class folders: they are one photo.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from excel_core.config import DatasetSpec
from excel_core.datasets.images import DecodeOptions
from excel_core.datasets.labels import LabelRow, LabelTable, check_class_names, in_class_order, read_label_table
from excel_core.datasets.manifest import (
    NO_LABELS,
    ListedImage,
    Manifest,
    build_manifest,
    check_image_id,
    check_split_names,
    image_digest,
)
from excel_core.datasets.mask_guard import MASK_FOLDERS
from excel_core.errors import DataError

__all__ = [
    "check_folder",
    "check_folder_splits",
    "folder_class_names",
    "folder_decode_options",
    "folder_sources",
    "read_folder",
]

TABLE = "labels.csv"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")
DEFAULT_SPLIT = "train"


def folder_class_names(root: Path) -> tuple[str, ...]:
    """The class names that the table or the folders' names hold, in alphabetical order; DataError where there are none."""
    if (root / TABLE).is_file():
        table = _table(root)
        names = {name for row in table.rows for name in table.names(row)}
        if not names:
            raise DataError(f"{root / TABLE}: no row has a label; write class names into the column 'labels'")
    else:
        names = {folder.name for folder in _class_folders(root)}
    # The order is part of the result, since label maps count classes in it: the same on every file system.
    return tuple(sorted(names, key=lambda name: (name.casefold(), name)))


def check_folder(root: Path) -> None:
    """DataError where there is neither a table nor a folder of photos."""
    folder_class_names(root)


def check_folder_splits(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> None:
    """DataError, naming the setting, for a split that no photo is in."""
    rows = _table(root).rows if (root / TABLE).is_file() else ()
    known = list(dict.fromkeys(row.split or DEFAULT_SPLIT for row in rows)) or [DEFAULT_SPLIT]
    for split, setting in spec.settings_of_splits.items():
        if split not in known:
            problem, example = _unknown_split(root, split, known), setting.format(known[0])
            raise DataError(f"{setting.partition('=')[0]}: {problem}; set another: --set '{example}'")


def _unknown_split(root: Path, split: str, known: Sequence[str]) -> str:
    return f"unknown split {split!r}; {root} has: {', '.join(known)}. {TABLE} may have a column 'split'"


def folder_decode_options(max_side: int | None) -> DecodeOptions:
    """How every stage decodes the photos of a folder: turned upright, as their owner knows them, and not too large."""
    return DecodeOptions(upright=True, max_side=max_side)


def folder_sources(root: Path) -> list[str]:
    """The files and folders under root that hold the photos, relative to it; nothing else that lies there."""
    if not (root / TABLE).is_file():
        return [folder.name for folder in _class_folders(root)]
    return [TABLE, *(_find(root, row) for row in _table(root).rows)]


def read_folder(
    root: Path,
    splits: Sequence[str],
    class_names: Sequence[str],
    *,
    unlabelled: Sequence[str] = (),
    max_bad: float = 0.01,
    threads: int = 4,
    max_side: int | None = None,
) -> Manifest:
    """Read the photos under root → Manifest, rows in the table's order or sorted by name; the parameters as `read_voc`'s.
    Photos are turned upright and shrunk to `max_side`, as `folder_decode_options(max_side)` says; so are the manifest's sizes.

    Raises DataError for a folder with neither a table nor class folders, an unknown split or label, a path that leads out of
    the folder, and two photos of one name; a photo that is missing, damaged or without labels keeps its row with the reason.
    """
    check_class_names(class_names)
    check_split_names(splits)
    listed = _from_table(root, class_names, unlabelled) if (root / TABLE).is_file() else _from_folders(root, class_names)
    _check_names(listed)
    known = list(dict.fromkeys(row.split for row in listed))
    unknown = [split for split in splits if split not in known]
    if unknown:
        raise DataError(_unknown_split(root, unknown[0], known))
    ordered = [row for split in splits for row in listed if row.split == split]
    return build_manifest(root, ordered, max_bad=max_bad, threads=threads, decode=folder_decode_options(max_side))


def _table(root: Path) -> LabelTable:
    return read_label_table(root / TABLE, ("image", "labels"), ("image", "labels", "split"))


def _from_table(root: Path, class_names: Sequence[str], unlabelled: Sequence[str]) -> list[ListedImage]:
    table = _table(root)
    listed = []
    for row in table.rows:
        labels = tuple(in_class_order(table.names(row, class_names), class_names, row.where))
        split, image = row.split or DEFAULT_SPLIT, _find(root, row)
        problem = "" if labels or split in unlabelled else NO_LABELS
        listed.append(ListedImage(_id(image, row.where), split, image, labels, problem))
    return listed


def _find(root: Path, row: LabelRow) -> str:
    """A row's photo relative to the root, with its suffix; as it is written where there is no such file."""
    path = PurePosixPath(row.image)
    if path.is_absolute() or ".." in path.parts or "\\" in row.image or ":" in row.image or not row.image.isprintable():
        raise DataError(f"{row.where}: {row.image!r} leads out of the folder; name photos by their path inside {root}")
    if (root / path).is_file():
        return str(path)
    # Cameras write .JPG as well as .jpg.
    suffixes = [spelling for suffix in SUFFIXES for spelling in (suffix, suffix.upper())]
    candidates = [f"{path}{suffix}" for suffix in suffixes if (root / f"{path}{suffix}").is_file()]
    if len(candidates) > 1:
        raise DataError(f"{row.where}: {row.image} may be any of {', '.join(candidates)}; write the suffix")
    return candidates[0] if candidates else str(path)


def _from_folders(root: Path, class_names: Sequence[str]) -> list[ListedImage]:
    """One row per photo in the order of their names; a photo's copies in several class folders are one row."""
    copies_of: dict[str, dict[str, Path]] = {}  # file name → class → path
    for folder in _class_folders(root):
        if folder.name not in class_names:
            raise DataError(f"{folder}: no class is called so; valid: {', '.join(class_names)}")
        for path in _photos(folder):
            copies_of.setdefault(path.name, {})[folder.name] = path
    listed = []
    for name in sorted(copies_of):
        copies = copies_of[name]
        first = next(iter(copies.values()))
        # One photo in several class folders has several classes; two photos of one name would share an id.
        digest = image_digest(first)
        for other in copies.values():
            if image_digest(other) != digest:
                raise DataError(f"{first} and {other} are different photos of one name; rename one")
        labels = tuple(class_name for class_name in class_names if class_name in copies)
        image = first.relative_to(root).as_posix()
        listed.append(ListedImage(_id(image, str(first)), DEFAULT_SPLIT, image, labels))
    return listed


def _class_folders(root: Path) -> list[Path]:
    """Folders with photos; DataError, saying what was looked for, where there is none."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; pass the folder that holds the photos")
    subfolders = [path for path in sorted(root.iterdir()) if path.is_dir() and not _is_hidden_or_masks(path.name)]
    folders = [path for path in subfolders if any(_photos(path))]
    if not folders:
        photos = sum(1 for _ in _photos(root))
        raise DataError(
            f"{root}: looked for {TABLE} (image,labels) or one folder of photos per class; found {photos} photos and neither"
        )
    return folders


def _is_hidden_or_masks(name: str) -> bool:
    return name.startswith(".") or name.casefold() in {folder.casefold() for folder in MASK_FOLDERS}


def _photos(folder: Path) -> Iterable[Path]:
    files = sorted(folder.iterdir())
    return (path for path in files if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _id(image: str, where: str) -> str:
    path = PurePosixPath(image)
    return check_image_id(path.stem if path.suffix.lower() in SUFFIXES else path.name, where)


def _check_names(listed: Sequence[ListedImage]) -> None:
    row_of: dict[str, ListedImage] = {}
    for row in listed:
        other = row_of.setdefault(row.id, row)
        if other is not row:
            raise DataError(f"{other.image} and {row.image} would both be called {row.id!r}; rename one")
