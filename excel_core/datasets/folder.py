"""A folder of one's own photos → the manifest, with image-level labels from a table or from the folders' names.

labels.csv beside the photos     image,labels[,split]      see labels.py; split is train where it is left out
or one folder per class          dog/*.jpg  sofa/*.jpg     a photo that is in several of them has all of their classes

What is not read is named with its reason by left_out.py.

In the table photos are named by their path inside the folder, with or without the suffix. An id is a file's name without its
suffix, so two photos of one name are an error, but for byte-identical copies in several class folders: they are one photo.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from excel_core.class_names import canonical_name, class_names_problem
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
from excel_core.datasets.photo_files import (
    find_file,
    is_hidden,
    is_own_result,
    is_own_store,
    is_photo,
    photo_suffixes,
    printable,
)
from excel_core.errors import DataError

__all__ = [
    "DEFAULT_SPLIT", "TABLE", "check_folder", "check_folder_splits", "class_folders", "folder_class_names",
    "folder_decode_options", "folder_sources", "is_data_folder", "list_folder", "read_folder", "table_photos",
]  # fmt: skip

TABLE = "labels.csv"
DEFAULT_SPLIT = "train"


def folder_class_names(root: Path) -> tuple[str, ...]:
    """The class names that the table or the folders' names hold, accents composed, in alphabetical order; DataError where there
    are none, or such that cannot be classes together."""
    if (root / TABLE).is_file():
        written = _table(root).told_names()
        if not written:
            raise DataError(f"{root / TABLE}: no row has a label; write class names into the column 'labels'")
    else:
        written = {folder.name for folder in class_folders(root)}
    problem = class_names_problem(sorted(written))
    if problem is not None:
        raise DataError(f"{root / TABLE if (root / TABLE).is_file() else root}: {problem}")
    # The order is part of the result, since label maps count classes in it: the same on every file system.
    return tuple(sorted(map(canonical_name, written), key=lambda name: (name.casefold(), name)))


def check_folder(root: Path) -> None:
    """DataError where there is neither a table nor a folder of photos. Which classes they name matters elsewhere: a class file
    may say."""
    if (root / TABLE).is_file():
        _table(root)
    else:
        class_folders(root)


def check_folder_splits(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> None:
    """DataError, naming the setting, for a split that no photo is in; and for what `list_folder` refuses."""
    list_folder(root, class_names, spec.test_splits)
    rows = _table(root).rows if (root / TABLE).is_file() else ()
    splits_there = list(dict.fromkeys(row.split or DEFAULT_SPLIT for row in rows)) or [DEFAULT_SPLIT]
    for split, setting in spec.settings_of_splits.items():
        if split not in splits_there:
            problem, example = _unknown_split(root, split, splits_there), setting.format(splits_there[0])
            raise DataError(f"{setting.partition('=')[0]}: {problem}; set another: --set '{example}'")


def _unknown_split(root: Path, split: str, known: Sequence[str]) -> str:
    return f"unknown split {split!r}; {root} has: {', '.join(known)}. {TABLE} may have a column 'split'"


def folder_decode_options(max_side: int | None) -> DecodeOptions:
    """How every stage decodes the photos of a folder: turned upright, as their owner knows them, and not too large."""
    return DecodeOptions(upright=True, max_side=max_side)


def folder_sources(root: Path) -> list[str]:
    """The files and folders under root that hold the photos, relative to it; nothing else that lies there."""
    if not (root / TABLE).is_file():
        return [folder.name for folder in class_folders(root)]
    return [TABLE, *(image for _, image in table_photos(root))]


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
    check_split_names(splits)
    listed = list_folder(root, class_names, unlabelled)
    splits_there = list(dict.fromkeys(row.split for row in listed))
    unknown = [split for split in splits if split not in splits_there]
    if unknown:
        raise DataError(_unknown_split(root, unknown[0], splits_there))
    ordered = [row for split in splits for row in listed if row.split == split]
    return build_manifest(root, ordered, max_bad=max_bad, threads=threads, decode=folder_decode_options(max_side))


def list_folder(root: Path, class_names: Sequence[str], unlabelled: Sequence[str] = ()) -> list[ListedImage]:
    """The photos under root with their labels, of every split, before one is opened; errors as `read_folder`."""
    check_class_names(class_names)
    listed = _from_table(root, class_names, unlabelled) if (root / TABLE).is_file() else _from_folders(root, class_names)
    _check_names(listed)
    return listed


def table_photos(root: Path) -> list[tuple[LabelRow, str]]:
    """Each row of the table with its photo's path relative to the root."""
    return [(row, _find(root, row)) for row in _table(root).rows]


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
        raise DataError(
            f"{row.where}: {row.image!r} leads out of the folder; name photos by their path inside {root}, with '/' between "
            "folders"
        )
    file = find_file(root, str(path))
    if file is not None:
        return file
    # Cameras write .JPG as well as .jpg.
    suffixes = [spelling for suffix in photo_suffixes() for spelling in (suffix, suffix.upper())]
    candidates = [file for suffix in suffixes if (file := find_file(root, f"{path}{suffix}")) is not None]
    if len(candidates) > 1:
        raise DataError(f"{row.where}: {row.image} may be any of {', '.join(candidates)}; write the suffix")
    return candidates[0] if candidates else str(path)


def _from_folders(root: Path, class_names: Sequence[str]) -> list[ListedImage]:
    """One row per photo in the order of their names; a photo's copies in several class folders are one row."""
    copies_of: dict[str, dict[str, Path]] = {}  # file name → class → path
    for folder in class_folders(root):
        class_name = in_class_order([folder.name], class_names, str(folder))[0]
        for path in _photos(folder):
            copies_of.setdefault(path.name, {})[class_name] = path
    listed = []
    for name in sorted(copies_of):
        copies = copies_of[name]
        first = next(iter(copies.values()))
        # One photo in several class folders has several classes; two photos of one name would share an id.
        digest = image_digest(first) if len(copies) > 1 else ""
        for other in list(copies.values())[1:]:
            if image_digest(other) != digest:
                raise DataError(f"{first} and {other} are different photos of one name; rename one")
        labels = tuple(class_name for class_name in class_names if class_name in copies)
        image = first.relative_to(root).as_posix()
        listed.append(ListedImage(_id(image, printable(first)), DEFAULT_SPLIT, image, labels))
    return listed


def class_folders(root: Path) -> list[Path]:
    """Folders with photos; DataError, saying what was looked for, where there is none."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; pass the folder that holds the photos")
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and is_data_folder(path) and any(_photos(path))]
    if not folders:
        photos = sum(1 for _ in _photos(root))
        below = [path for path in sorted(root.iterdir()) if path.is_dir() and is_data_folder(path) and _holds_classes(path)]
        raise DataError(
            f"{root}: looked for {TABLE} (image,labels) or one folder of photos per class; found {photos} photos and neither"
            + (f"; pass {below[0]} instead" if below else "")
        )
    return folders


def _holds_classes(folder: Path) -> bool:
    """Whether a folder has a table or folders of photos: one of several splits, `train/dog/*.jpg`."""
    below = [path for path in folder.iterdir() if path.is_dir() and is_data_folder(path)]
    return (folder / TABLE).is_file() or any(any(_photos(path)) for path in below)


def is_data_folder(folder: Path) -> bool:
    """Whether a folder may hold photos: it is neither hidden, nor of masks, nor an output of excel."""
    is_masks = folder.name.casefold() in {name.casefold() for name in MASK_FOLDERS}
    return not (is_masks or is_hidden(folder.name) or is_own_result(folder) or is_own_store(folder))


def _photos(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.iterdir()) if is_photo(path) and not path.is_dir())


def _id(image: str, where: str) -> str:
    path = PurePosixPath(image)
    return check_image_id(path.stem if path.suffix.lower() in photo_suffixes() else path.name, where)


def _check_names(listed: Sequence[ListedImage]) -> None:
    row_of: dict[str, ListedImage] = {}
    for row in listed:
        first_row = row_of.setdefault(row.id, row)
        if first_row.image == row.image and first_row is not row:
            raise DataError(f"{TABLE} has two rows of {row.image}; merge them")
        if first_row is not row:
            raise DataError(f"{first_row.image} and {row.image} would both be called {row.id!r}; rename one")
