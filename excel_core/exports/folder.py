"""A folder of results that appears whole or not at all, and is replaced only where it is an earlier export.

OUT/export.json     excel-export/1: what was exported, from which run, and the names of everything beside it

An import (excel_core/imports) fills its folder in the same way: import.json, excel-import/1.
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

__all__ = ["check_free", "whole_folder"]


def check_free(out: Path, force: bool, kind: str = "export") -> None:
    """SettingError unless `out` can take an export: missing, empty, or with `force` an earlier export and nothing else. `kind`:
    what such a folder is, export or import."""
    if out.is_file():
        raise SettingError(f"--out {out}: is a file; name a folder")
    if Path.cwd().is_relative_to(out.resolve()):
        raise SettingError(f"--out {out}: is the folder you are in, or around it; name a folder of its own")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        raise SettingError(f"--out {out}: is not empty; name another folder, or replace an earlier {kind} by --force")
    foreign = {path.name for path in out.iterdir()} - _earlier_names(out, kind)
    if foreign:
        raise SettingError(
            f"--out {out}: holds {min(foreign)!r}, which no {kind} wrote; --force replaces earlier {kind}s alone: name another "
            "folder or move it away"
        )


@contextmanager
def whole_folder(out: Path, force: bool, description: dict[str, Any], kind: str = "export") -> Iterator[Path]:
    """Give an empty folder to fill. At the end it gets KIND.json, which holds `description`, and takes the name `out`. After
    an error nothing of it is left, and an earlier `out` is as it was. The caller may add to `description` while it fills the
    folder; here it gets `holds`, the names in the folder."""
    check_free(out, force, kind)
    out = out.resolve()
    # Names that nobody can guess: in a folder that others can write, they could stand there already.
    temporary, replaced = (out.with_name(f".{out.name}.{secrets.token_hex(8)}.{end}") for end in ("tmp", "old"))
    moved = False
    try:
        temporary.mkdir(parents=True)
        yield temporary
        description["holds"] = sorted(path.name for path in temporary.iterdir())
        write_json(temporary / f"{kind}.json", {"format": f"excel-{kind}/1", **description})
        if out.exists():
            moved = True  # first, since a signal may come in between
            os.replace(out, replaced)  # a folder cannot replace one that is not empty
        os.replace(temporary, out)
    except OSError as error:
        raise StoreError(f"--out {out}: the {kind} could not be written ({error}); nothing of it was left") from error
    finally:
        if moved and not out.exists():
            os.replace(replaced, out)
        for folder in (temporary, replaced):
            shutil.rmtree(folder, ignore_errors=True)


def _earlier_names(out: Path, kind: str) -> set[str]:
    """What an earlier export or import left in `out`, as its marker says; nothing where there is none."""
    try:
        marker = read_json(out / f"{kind}.json")
        return {f"{kind}.json", *marker["holds"]} if marker["format"] == f"excel-{kind}/1" else set()
    except (StoreError, KeyError, TypeError):
        return set()
