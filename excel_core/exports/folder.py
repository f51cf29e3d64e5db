"""A folder of results that appears whole or not at all, and is replaced only where it is an earlier export.

OUT/export.json     excel-export/1: what was exported, from which run, and the names of everything beside it
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from excel_core.errors import SettingError, StoreError
from excel_core.files import read_json, write_json

__all__ = ["EXPORT_FORMAT", "check_free", "whole_folder"]

EXPORT_FORMAT = "excel-export/1"
MARKER = "export.json"


def check_free(out: Path, force: bool) -> None:
    """SettingError unless `out` can take an export: missing, empty, or with `force` an earlier export and nothing else."""
    if out.is_file():
        raise SettingError(f"--out {out}: is a file; name a folder")
    if Path.cwd().is_relative_to(out.resolve()):
        raise SettingError(f"--out {out}: is the folder you are in, or around it; name a folder of its own")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise SettingError(f"--out {out}: is not empty; name another folder, or replace an earlier export by --force")
    foreign = {path.name for path in out.iterdir()} - _exported_names(out)
    if foreign:
        raise SettingError(
            f"--out {out}: holds {min(foreign)!r}, which no export wrote; --force replaces earlier exports alone: name another "
            "folder or move it away"
        )


@contextmanager
def whole_folder(out: Path, force: bool, description: dict[str, Any]) -> Iterator[Path]:
    """Give an empty folder to fill. At the end it gets export.json, which holds `description`, and takes the name `out`. After
    an error nothing of it is left, and an earlier `out` is as it was. The caller may add to `description` while it fills the
    folder; here it gets `holds`, the names in the folder."""
    check_free(out, force)
    out = out.resolve()
    # Names that nobody can guess: in a folder that others can write, they could stand there already.
    temporary, old = (out.with_name(f".{out.name}.{secrets.token_hex(8)}.{end}") for end in ("tmp", "old"))
    moved = False
    try:
        temporary.mkdir(parents=True)
        yield temporary
        description["holds"] = sorted(path.name for path in temporary.iterdir())
        write_json(temporary / MARKER, {"format": EXPORT_FORMAT, **description})
        if out.exists():
            moved = True  # first, since a signal may come in between
            os.replace(out, old)  # a folder cannot replace one that is not empty
        os.replace(temporary, out)
    except OSError as error:
        raise StoreError(f"--out {out}: the export could not be written ({error}); nothing of it was left") from error
    finally:
        if moved and not out.exists():
            os.replace(old, out)
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def _exported_names(out: Path) -> set[str]:
    """What an earlier export left in `out`, as its export.json says; nothing where there is none."""
    try:
        marker = read_json(out / MARKER)
        return {MARKER, *marker["holds"]} if marker["format"] == EXPORT_FORMAT else set()
    except (StoreError, KeyError, TypeError):
        return set()
