"""What a store holds, for comparing two of them, or one before and after."""

import hashlib
from pathlib import Path

from tasks.engine.object_store import REMOTE
from tasks.engine.output import MARKER, PARTIAL, RESUME, read_marker, read_output

__all__ = ["committed", "contents", "file_digests"]

TIMES = ("records", "runs", "prefect", "report", REMOTE)  # they, and markers, hold times, processes and paths


def file_digests(store: Path) -> dict[str, str]:
    """SHA-256 of every output file by its name; of everything that holds no time."""
    other = (".lock", ".tmp")  # a killed run leaves a half-written text embedding under a name that nobody reads
    files = [path for path in store.rglob("*") if path.is_file() and path.name != MARKER and path.suffix not in other]
    named = {path.relative_to(store).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(named.items())
        if name.split("/")[0] not in TIMES
    }


def contents(store: Path) -> dict[str, str]:
    """The content digest of every complete output but the report, which shows times."""
    markers = {folder.relative_to(store).as_posix(): read_marker(folder) for folder in _finals(store)}
    return {name: marker.output["content"] for name, marker in markers.items() if not name.startswith("report/")}


def committed(store: Path) -> dict[str, tuple[int, int]]:
    """Every folder that has its final name: inode and time of change of its marker. It must be complete."""
    for folder in _finals(store):
        assert read_output(folder) is not None, f"{folder} is not complete"
    markers = {folder.relative_to(store).as_posix(): (folder / MARKER).stat() for folder in _finals(store)}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in markers.items()}


def _finals(store: Path) -> list[Path]:
    kinds = [kind for kind in store.glob("[!.]*") if kind.name not in ("records", "runs", "prefect", "texts")]
    return sorted(folder for kind in kinds for folder in kind.glob("[!.]*") if folder.suffix not in (PARTIAL, RESUME))
