"""What other users of this machine may not read: the folder of Prefect's database, and a file written for this user alone."""

import os
import pwd
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from excel_core.errors import SettingError

__all__ = ["private_folder", "write_private"]

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(folder: Path, notify: Callable[[str], None]) -> None:
    """Make `folder`, mode 0700. Of one that exists, shut what group and others may open, and say so through `notify`.
    SettingError where it, or a file in it, is another user's: they could read what is written there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        return
    _check_owner(folder)
    is_open = _shut(folder)  # first: from here on nobody else can exchange a file in it
    for entry in sorted(folder.iterdir()):
        if not entry.is_symlink():
            _check_owner(entry)
            is_open |= _shut(entry)
    if folder.stat().st_mode & OTHERS:
        notify(f"{folder}: this disk keeps no modes, so that other users of this machine may read it, and the server's key")
    elif is_open:
        notify(f"{folder}: other users of this machine could read it; now only you can")


def write_private(path: Path, text: str, replace: bool = True) -> None:
    """Write `text` to `path`, mode 0600 from the first moment. Without `replace`, a file that exists stays as it is."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace:
            partial.replace(path)
        else:
            with suppress(FileExistsError):
                _create(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _create(written: Path, path: Path) -> None:
    """Give `written` the name `path` too, which has all its bytes from the first moment; on a disk without links, `path` gets a
    copy. FileExistsError where there is such a file."""
    try:
        os.link(written, path)
    except FileExistsError:
        raise
    except OSError:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(written.read_bytes())


def _check_owner(path: Path) -> None:
    owner = path.stat().st_uid
    if owner != os.geteuid():
        with suppress(KeyError):
            owner = pwd.getpwuid(owner).pw_name  # type: ignore[assignment]
        raise SettingError(
            f"{path} belongs to user {owner}: choose another --store, or set PREFECT_HOME to a folder of your own"
        )


def _shut(path: Path) -> bool:
    """Take group's and others' rights from a path of this user → whether they had any."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OTHERS:
        with suppress(PermissionError):  # a disk that keeps no modes may refuse, or do nothing
            path.chmod(mode & ~OTHERS)
    return bool(mode & OTHERS)
