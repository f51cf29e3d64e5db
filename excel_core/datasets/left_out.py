"""What a run of one's own photos leaves out, each with the reason: photos, folders without one, classes without one.

Reading a folder (folder.py) takes what it can use. A photo that lies elsewhere, or is of a format that is not read, would go
missing without a word; so everything below the folder that looks like a picture is accounted for here. No pixel is decoded.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.folder import DEFAULT_SPLIT, TABLE, class_folders, is_data_folder, list_folder, table_photos
from excel_core.datasets.mask_guard import MASK_FOLDERS
from excel_core.datasets.photo_files import is_hidden, is_own_result, is_own_store, is_photo, printable, unread_picture
from excel_core.errors import and_more

__all__ = ["LeftOut", "left_out_lines", "left_out_of_folder"]

READ_FILES = (TABLE, "classes.yaml", "classes.json")
MAX_NAMED = 5  # things of one reason that a line names; left_out.csv has all


@dataclass(frozen=True)
class LeftOut:
    """What is left out: a file or a folder, relative to the data folder, or `class NAME`; and why."""

    what: str
    reason: str


def left_out_lines(things: Iterable[LeftOut]) -> list[str]:
    """One line a reason, for a person: how many things, the first of them by name, and why."""
    by_reason: dict[str, list[str]] = {}
    for thing in things:
        by_reason.setdefault(thing.reason, []).append(printable(thing.what))
    return [f"left out: {and_more(names, MAX_NAMED)}: {reason}" for reason, names in by_reason.items()]


def left_out_of_folder(root: Path, spec: DatasetSpec, class_names: Sequence[str], store: Path | None = None) -> list[LeftOut]:
    """Everything that a run leaves out of a folder of photos, in the order of the folder's names. `store`: the run's own, which
    may lie in it. DataError as of `read_folder`."""
    if (root / TABLE).is_file():
        unused = [*_unused_rows(root, spec), *_without_row(root, store)]
    else:
        unused = list(_beside_class_folders(root, store))
    return [*_misnamed(root), *unused, *_classes_without_photo(root, spec, class_names)]


def _misnamed(root: Path) -> Iterator[LeftOut]:
    """Files that were meant to be read: `Labels.csv`, `classes.yml`."""
    for path in sorted(root.iterdir()):
        name = path.name.lower().replace(".yml", ".yaml")
        if name in READ_FILES and path.name != name and not (root / name).exists():  # else it is the same, or its copy
            yield LeftOut(path.name, f"it is read under the name {name} alone; rename it")


def _unused_rows(root: Path, spec: DatasetSpec) -> Iterator[LeftOut]:
    """Rows of a split that the run does not use."""
    used = list(spec.settings_of_splits)
    for row, image in table_photos(root):
        split = row.split or DEFAULT_SPLIT
        if split not in used:
            yield LeftOut(image, _why_unused(split, used))


def _why_unused(split: str, used: Sequence[str]) -> str:
    like = next((other for other in used if other.casefold() == split.casefold()), None)
    advice = f"write {like!r}" if like else f"use it too, e.g. --set 'dataset.val_splits=[{split}]'"
    return f"{TABLE} puts it into split {split!r}, the run uses {', '.join(used)}; {advice}"


def _without_row(root: Path, store: Path | None) -> Iterator[LeftOut]:
    """Pictures that the table does not name."""
    named = {image for _, image in table_photos(root)}
    for path in _files_below(root, store):
        image = path.relative_to(root).as_posix()
        reason = f"{TABLE} has no row for it" if is_photo(path) else unread_picture(path)
        if image not in named and reason:
            yield LeftOut(image, reason)


def _beside_class_folders(root: Path, store: Path | None) -> Iterator[LeftOut]:
    """Pictures that are not directly in a class folder, or not read, and folders that are no class for want of a photo."""
    classes = set(class_folders(root))
    yield from _pictures_and_reasons(root, root.iterdir(), "it lies in no class folder; move it into one")
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if is_hidden(folder.name) or _is_masks(folder) or is_own_store(folder) or _is_same(folder, store):
            continue
        if is_own_result(folder):
            yield LeftOut(f"{folder.name}/", "excel wrote this folder, so it is no class; move photos to another one")
            continue
        if folder not in classes:
            yield LeftOut(f"{folder.name}/", "no class, for no photo that is read lies directly in it; add some or remove it")
        yield from _pictures_and_reasons(root, folder.iterdir() if folder in classes else (), "")
        below = (path for path in _files_below(folder, store) if path.parent != folder or folder not in classes)
        yield from _pictures_and_reasons(root, below, f"it lies in a sub-folder; move it up, into {folder.name}/")


def _pictures_and_reasons(root: Path, paths: Iterable[Path], reason_for_photos: str) -> Iterator[LeftOut]:
    """Those of `paths` that are pictures: photos with the reason given, where there is one, others with their own."""
    for path in sorted(path for path in paths if not path.is_dir()):
        reason = reason_for_photos if is_photo(path) else unread_picture(path)
        if reason:
            yield LeftOut(path.relative_to(root).as_posix(), reason)


def _files_below(top: Path, store: Path | None) -> Iterator[Path]:
    """Every file below `top` that may be a photo, in order; links to folders are not followed."""
    for place, folders, files in os.walk(top):
        folder = Path(place)
        folders[:] = [name for name in sorted(folders) if is_data_folder(folder / name) and not _is_same(folder / name, store)]
        yield from (folder / name for name in sorted(files))


def _is_masks(folder: Path) -> bool:
    return folder.name.casefold() in {name.casefold() for name in MASK_FOLDERS}


def _is_same(folder: Path, store: Path | None) -> bool:
    return store is not None and folder.resolve() == store.resolve()


def _classes_without_photo(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> Iterator[LeftOut]:
    """Classes of the run of which the training split has no photo."""
    listed = list_folder(root, class_names, spec.test_splits)
    shown = {name for row in listed if row.split == spec.train_split for name in row.labels}
    for name in class_names:
        if name not in shown:
            yield LeftOut(f"class {name}", f"no photo of split {spec.train_split!r} shows it, so it cannot be learnt")
