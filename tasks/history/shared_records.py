"""Records of runs, and their signs of life, on the storage behind a store, so that every machine sees every run.

Whoever writes a record writes it there first. So what is there is never older than a copy here, and a copy of what is not there
any more goes.
"""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from excel_core.files import written_then_renamed
from tasks.engine.object_store import remote_of

__all__ = ["receive_records", "remove_shared", "send_file"]

PREFIX = "records/"


def send_file(file: Path, content: bytes) -> None:
    """Write what STORE/records/`file` holds, or is about to hold, to the storage behind the store, where there is one."""
    remote = remote_of(file.parents[1])
    if remote is not None:
        remote.write(PREFIX + file.name, content)


def remove_shared(file: Path) -> None:
    """Remove STORE/records/`file` from the storage behind the store, where there is one."""
    remote = remote_of(file.parents[1])
    if remote is not None:
        remote.delete([PREFIX + file.name])


def receive_records(store: Path) -> None:
    """Make STORE/records what the storage behind the store has: its records, and signs of life as old as they are there."""
    remote = remote_of(store)
    if remote is None:
        return
    folder = store / "records"
    folder.mkdir(parents=True, exist_ok=True)
    stored = {entry.name.removeprefix(PREFIX): entry for entry in remote.listed(PREFIX)}
    for name, entry in stored.items():
        file = folder / name
        if "/" in name or not name.endswith((".json", ".alive")):
            continue
        if name.endswith(".alive"):
            file.touch()
            touched = time.time() - entry.age
            os.utime(file, (touched, touched))
        elif _md5(file) != entry.etag and (content := remote.read(entry.name)) is not None:
            with written_then_renamed(file) as temporary:
                temporary.write_bytes(content)
    for file in [*folder.glob("*.json"), *folder.glob(".*.alive")]:
        if file.name not in stored:
            file.unlink(missing_ok=True)


def _md5(file: Path) -> str:
    """What most servers give as the ETag of an object that was written at once; others are read each time."""
    with suppress(OSError):
        return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    return ""
