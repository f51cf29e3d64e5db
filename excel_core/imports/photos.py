"""Which photo an annotation is of: a folder of photos, or a zip with some, looked through once."""

import re
import shutil
import unicodedata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from excel_core.datasets.mask_guard import MASK_FOLDERS
from excel_core.datasets.photo_files import photo_suffixes
from excel_core.errors import DataError

__all__ = ["Photo", "Photos"]

UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
MAX_BYTES = 1 << 29  # of a photo in a zip, unpacked


@dataclass(frozen=True)
class Photo:
    """A photo by its path below the folder or zip `source`."""

    source: Path
    path: PurePosixPath

    def copy(self, target: Path) -> None:
        """Its bytes, into the file `target`. DataError where they cannot be read."""
        try:
            if self.source.is_dir():
                shutil.copyfile(self.source / self.path, target)
                return
            with zipfile.ZipFile(self.source) as archive:
                if archive.getinfo(str(self.path)).file_size > MAX_BYTES:
                    raise DataError(f"has more than {MAX_BYTES:,} bytes")
                with archive.open(str(self.path)) as content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
        except (zipfile.BadZipFile, RuntimeError, OSError) as error:
            raise DataError(f"cannot be read ({error})") from error


class Photos:
    """The photos of a folder, its sub-folders included, or of a zip. A name that leads elsewhere finds nothing: names are only
    compared, however they compose accents."""

    def __init__(self, source: Path) -> None:
        if source.is_dir():
            paths: Iterable[PurePosixPath] = (
                PurePosixPath(path.relative_to(source).as_posix()) for path in source.rglob("*") if path.is_file()
            )
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                paths = [PurePosixPath(name) for name in archive.namelist()]
        else:
            raise DataError(f"--photos {source}: neither a folder nor a zip")
        self._by_stem: dict[str, list[Photo]] = {}
        for path in sorted(paths):
            hidden = any(part.startswith(".") or part in MASK_FOLDERS for part in path.parts)
            if path.suffix.lower() in photo_suffixes() and not hidden:
                self._by_stem.setdefault(_composed(path).stem, []).append(Photo(source, path))

    def __bool__(self) -> bool:
        return bool(self._by_stem)

    def find(self, name: str) -> Photo:
        """The photo that a tool calls `name`; DataError where there is none, or more than one."""
        path = _composed(PurePosixPath(name))
        candidates = self._named(path)
        if not candidates and UPLOADED.match(path.name):
            candidates = self._named(path.with_name(UPLOADED.sub("", path.name)))
        if len(candidates) > 1:  # of one name in several folders, the one whose folders are told
            told = [photo for photo in candidates if path.parts[-len(photo.path.parts) :] == _composed(photo.path).parts]
            candidates = told or candidates
        if not candidates:
            raise DataError("has no photo of this name")
        if len(candidates) > 1:
            raise DataError(f"may be any of {', '.join(str(photo.path) for photo in candidates)}")
        return candidates[0]

    def _named(self, path: PurePosixPath) -> list[Photo]:
        """Those of this file name; of this stem, where the tool left out the suffix."""
        if path.suffix.lower() not in photo_suffixes():
            return self._by_stem.get(path.name, [])
        same = self._by_stem.get(path.stem, [])
        return [photo for photo in same if _composed(photo.path).name == path.name]


def _composed(path: PurePosixPath) -> PurePosixPath:
    """The path with composed accents."""
    return PurePosixPath(unicodedata.normalize("NFC", str(path)))
