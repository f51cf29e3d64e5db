"""Where the label map of an image is: ID.png in a folder, whatever the case of its suffix, however accents are composed."""

from pathlib import Path

from excel_core.datasets.photo_files import find_file, is_hidden
from excel_core.errors import DataError

__all__ = ["label_file", "label_files"]

SUFFIXES = (".png", ".PNG", ".Png")


def label_file(folder: Path, image_id: str) -> Path:
    """The file of an image's label map; folder/ID.png where there is none."""
    candidates = (find_file(folder, f"{image_id}{suffix}") for suffix in SUFFIXES)
    return folder / next(filter(None, candidates), f"{image_id}{SUFFIXES[0]}")


def label_files(folder: Path) -> dict[str, Path]:
    """Every label map of a folder by its image's id, in the order of ids. DataError for two files of one id."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".png" or is_hidden(path.name):
            continue
        first_path = files.setdefault(path.stem, path)
        if first_path != path:
            raise DataError(f"{folder}: {first_path.name} and {path.name} are label maps of one image; remove one")
    return dict(sorted(files.items()))
