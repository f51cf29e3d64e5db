"""What can go from the storage behind a store: markers of outputs that no kept run refers to, and files that no marker names.

Files are shared between outputs, so that a file goes once the last marker that names it is gone. One that is younger than
MIN_AGE stays: a run that began meanwhile, on whatever machine, may have found it there and be about to name it.
"""

from collections.abc import Callable
from pathlib import Path

from excel_core.errors import StoreError
from tasks.engine.marker import MARKER, parse_marker
from tasks.engine.object_store import ObjectStore, StoredObject
from tasks.engine.shared_outputs import object_name

__all__ = ["check_shared", "shared_outputs", "unnamed_objects"]

MIN_AGE = 3600.0  # seconds


def shared_outputs(remote: ObjectStore, kind: str) -> dict[str, StoredObject]:
    """Markers of a kind of outputs by key."""
    markers = {}
    for entry in remote.listed(f"{kind}/"):
        key, _, file = entry.name.removeprefix(f"{kind}/").partition("/")
        if file == MARKER:
            markers[key] = entry
    return markers


def unnamed_objects(remote: ObjectStore, store: Path, markers: list[str]) -> list[StoredObject]:
    """Files of at least MIN_AGE that none of these markers, objects by name, speaks of. StoreError where one cannot be read."""
    named: set[str] = set()
    for name in markers:
        marker = remote.read(name)
        if marker is not None:
            named |= {object_name(digest) for _, _, digest in parse_marker(marker, (store / name).parent).files.values()}
    return [entry for entry in remote.listed("objects/") if entry.age >= MIN_AGE and entry.name not in named]


def check_shared(remote: ObjectStore, store: Path, kinds: tuple[str, ...], damaged: Callable[[Path, list[str]], None]) -> int:
    """Look whether every file that a marker speaks of is there, with its size; bytes are not read, of which the storage keeps
    checksums of its own → markers that were read. `damaged` hears of an output and its files; it loses its marker
    there, and what is damaged, so that the next run builds it."""
    sizes = {entry.name: entry.bytes for entry in remote.listed("objects/")}
    checked = 0
    for kind in kinds:
        for key, entry in shared_outputs(remote, kind).items():
            folder, marker = store / kind / key, remote.read(entry.name)
            if marker is None:  # somebody removed it meanwhile
                continue
            checked += 1
            try:
                files = parse_marker(marker, folder).files
            except StoreError:
                files, lost = {}, [MARKER]
            else:
                lost = [name for name, (size, _, digest) in files.items() if sizes.get(object_name(digest)) != size]
            if lost:
                remote.delete([entry.name, *(object_name(files[name][2]) for name in lost if name in files)])
                damaged(folder, lost)
    return checked
