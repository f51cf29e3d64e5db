"""Which files are photos: their suffixes, why a picture is not read, how a name finds its file, and how it is opened.

Decoders look at the content (images.py). Suffixes only say which files of a folder are meant as photos.
"""

import errno
import os
import stat
import unicodedata
from functools import lru_cache
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path

__all__ = [
    "HEIC_ADVICE", "find_file", "is_hidden", "is_own_result", "is_own_store", "is_photo", "open_photo", "photo_suffixes",
    "picture_kind", "printable", "reads_heic", "unread_format", "unread_picture",
]  # fmt: skip

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm")
HEIC_SUFFIXES = (".heic", ".heif", ".hif")  # what phones write
HEIC_ADVICE = "HEIC is read with pillow-heif alone; install it (pip install 'excel-wsss[heic]'), or save the photo as JPEG"
UNREAD_SUFFIXES = (
    ".avif", ".jxl", ".jp2", ".svg", ".psd", ".xcf", ".eps", ".ai", ".tga", ".exr", ".hdr", ".ico", ".icns", ".pgm", ".pnm",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw",
)  # fmt: skip  # pictures too, of formats that are not read
# How files of pictures begin, for those whose suffix says nothing.
SIGNATURES = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF",
}  # fmt: skip
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"), "HEIC")
# Files by which a folder is one of excel's own: results of single photos, an export; an output of a stage, a store.
RESULT_FILES, STORE_FILES = ("photos.json", "export.json"), ("stage.json", "records/.number.lock")


def reads_heic() -> bool:
    """Whether HEIC is read here: pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def photo_suffixes() -> tuple[str, ...]:
    """Suffixes, in lower case, of the files in a folder that are taken for photos."""
    return (*SUFFIXES, *(HEIC_SUFFIXES if reads_heic() else ()))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, such as `._dog.jpg`, which macOS leaves beside `dog.jpg` and which is no photo."""
    return name.startswith(".")


def is_photo(path: Path) -> bool:
    """Whether a file of a folder is taken for a photo, by its name."""
    return path.suffix.lower() in photo_suffixes() and not is_hidden(path.name)


def open_photo(path: Path) -> BufferedReader:
    """Open a file to read its bytes. OSError for a pipe, a socket or a device: a pipe waits without end for who fills it."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device", str(path))
    return path.open("rb")


def unread_picture(path: Path) -> str:
    """Why a file that holds a picture is not taken for a photo; "" for a photo, and for a file that holds no picture. A file
    whose suffix says nothing is opened."""
    suffix = path.suffix.lower()
    if is_hidden(path.name) or suffix in photo_suffixes():
        return ""
    if problem := unread_format(path):
        return problem
    kind = picture_kind(path)
    name = f"the suffix {suffix!r}" if suffix else "no suffix"
    return f"a {kind} file with {name}; give it the suffix of its format" if kind else ""


def unread_format(path: Path) -> str:
    """Why a picture of this suffix is not read, whatever it holds; "" for a suffix that says no such thing."""
    suffix = path.suffix.lower()
    if suffix in HEIC_SUFFIXES and not reads_heic():
        return HEIC_ADVICE
    return f"{suffix} is not read; save it as JPEG or PNG" if suffix in UNREAD_SUFFIXES else ""


def picture_kind(path: Path) -> str:
    """The format of a file, told by its first bytes; "" for no picture, and for a file that cannot be read."""
    try:
        with open_photo(path) as file:
            start = file.read(16)
    except OSError:
        return ""
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12], "")
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), "")


def is_own_result(folder: Path) -> bool:
    """Whether excel wrote this folder, of masks and overlays, for a user."""
    return any((folder / name).is_file() for name in RESULT_FILES)


def is_own_store(folder: Path) -> bool:
    """Whether a folder is a store, or an output in one."""
    return any((folder / name).is_file() for name in STORE_FILES)


def find_file(root: Path, relative: str) -> str | None:
    """The path below root of the file that `relative` names, as the file system spells it; None where there is none. A name
    finds its file however either composes accents: macOS writes `é` as two characters, keyboards write one."""
    try:
        if (root / relative).is_file():
            return relative
    except OSError:  # a name that is longer than any file's
        return None
    if relative.isascii():
        return None
    folder, names = root, []
    for name in Path(relative).parts:
        if not (folder / name).exists():
            name = _same_name(folder, name) or name
        names.append(name)
        folder = folder / name
    return "/".join(names) if folder.is_file() else None


def _same_name(folder: Path, name: str) -> str | None:
    """The entry of the folder that is called so but for how accents are composed."""
    if not folder.is_dir():
        return None
    return _by_composed_name(folder, folder.stat().st_mtime_ns).get(unicodedata.normalize("NFC", name))


@lru_cache(maxsize=16)
def _by_composed_name(folder: Path, changed_ns: int) -> dict[str, str]:
    """The entries of a folder, last changed then, by their names with composed accents."""
    return {unicodedata.normalize("NFC", entry): entry for entry in sorted(os.listdir(folder))}


def printable(text: str | Path) -> str:
    """A file's name for a message or a JSON file: what is no character, or would move the cursor, is written as an escape."""
    characters = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in characters)
