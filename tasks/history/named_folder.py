"""Readable paths of a run's results.

    STORE/runs/by-name/<name>/config.yaml     what repeats the run: excel run --config …/config.yaml
    STORE/runs/by-name/<name>/<stage>         a link to the stage's output; <stage>.txt holds the path where no link can be made

Links are relative, so that a store can be moved. They are made from the records, which alone say what a run has.
"""

import os
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from excel_core.files import written_then_renamed
from tasks.history.run_record import RunRecord

__all__ = ["CONFIG", "NAMED", "folder_of", "link_outputs", "remove_strays", "write_config"]

NAMED = "runs"  # the folder of the store that holds nothing but names
CONFIG = "config.yaml"


def folder_of(record: RunRecord) -> Path | None:
    """The run's folder, which need not exist; None for a run of a version that made none."""
    return record.store / NAMED / "by-name" / record.folder if record.folder else None


def write_config(record: RunRecord) -> None:
    """Write the file that repeats the run, where the run has one."""
    folder = folder_of(record)
    if folder is not None and record.config:
        with written_then_renamed(folder / CONFIG, sync=False) as temporary:
            temporary.write_text(record.config, encoding="utf-8")


def link_outputs(record: RunRecord) -> None:
    """Make a link to the output of each of the run's own stages."""
    folder = folder_of(record)
    if folder is None or not record.own:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for stage, key in record.own.items():
        _point(folder / stage, Path(os.path.relpath(record.store / stage / key, folder)))


def remove_strays(store: Path, records: Iterable[RunRecord]) -> None:
    """Remove folders of runs that are gone."""
    folders = {record.folder for record in records}
    for path in (store / NAMED / "by-name").glob("*"):
        if path.name not in folders and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _point(link: Path, target: Path) -> None:
    """A link that leads to `target`, relative to its folder; a text file that says so, where there are no links."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    try:
        os.symlink(target, temporary, target_is_directory=True)
        os.replace(temporary, link)
    except OSError:
        with written_then_renamed(link.with_name(f"{link.name}.txt"), sync=False) as text:
            text.write_text(f"{target.as_posix()}\n", encoding="utf-8")
    finally:
        with suppress(OSError):
            temporary.unlink()
