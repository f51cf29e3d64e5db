"""Signs of life for other machines, which see no process: a small file that a run touches while it is at work.

Its age is told by the clock of the file system that holds it, against a file made now: clocks of machines differ.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from excel_core.errors import StoreError
from tasks.history.shared_records import remove_shared, send_file

__all__ = ["MAX_SILENCE", "beat_once", "heartbeat", "seconds_since_beat"]

BEAT_SECONDS = 30.0
MAX_SILENCE = 600.0  # seconds after which whoever should touch the file is taken for dead


@contextmanager
def heartbeat(path: Path) -> Iterator[None]:
    """Touch `path` now and every BEAT_SECONDS, from a thread of its own; after the block remove it."""
    beat_once(path)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(OSError, StoreError):  # a disk or storage that is away for a while, or a store that was removed
                beat_once(path)

    thread = threading.Thread(target=beat, name="excel-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError, StoreError):
            path.unlink(missing_ok=True)
            remove_shared(path)


def beat_once(path: Path) -> None:
    """Touch `path`, here and on the storage behind the store."""
    path.touch()
    send_file(path, b"alive")


def seconds_since_beat(path: Path) -> float | None:
    """How long ago `path` was touched; None where there is no such file."""
    try:
        touched = path.stat().st_mtime
    except OSError:
        return None
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=".clock.", suffix=".tmp") as fresh:
            return Path(fresh.name).stat().st_mtime - touched
    except OSError:  # of a store that can only be read
        return time.time() - touched
