"""Outputs on S3-compatible storage: brought to this machine when they are looked at, shared when they are complete.

An output is shared file by file, each under the digest of its bytes, and its marker last. So a marker never speaks of bytes
that are not there, whoever else uploads meanwhile; a file that two outputs have, such as a part's and the whole's, is uploaded
once; and a machine that is killed leaves objects that the next try finds. Where two machines built the same output, the
first marker counts, and the other machine takes that output for its own, so that all go on from the same bytes.
"""

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from excel_core.errors import StoreError
from excel_core.sync import make_folder, sync_file, sync_folder, sync_tree
from tasks.engine.fingerprint import file_digest
from tasks.engine.lock import locked
from tasks.engine.marker import MARKER, PARTIAL, Marker, key_of, parse_marker, read_marker
from tasks.engine.object_store import MAX_CONNECTIONS, ObjectStore, remote_of

__all__ = ["bring_here", "is_shared", "known_marker", "marker_name", "object_name", "remove_copy", "share", "shared_marker"]


def marker_name(folder: Path) -> str:
    """The marker's object of the output that lies, or is to lie, in `folder`."""
    return f"{folder.parent.name}/{folder.name}/{MARKER}"


def object_name(digest: str) -> str:
    """The object of the file with that SHA-256."""
    return f"objects/{digest[:2]}/{digest}"


def known_marker(folder: Path) -> Marker:
    """The marker of an output that is complete here or, where its store is shared, there; nothing is brought here. StoreError
    where there is none."""
    if (folder / MARKER).exists():
        return read_marker(folder)
    return shared_marker(folder) or read_marker(folder)


def shared_marker(folder: Path) -> Marker | None:
    """The marker of an output on the storage behind its store; None where there is neither. StoreError for a damaged one."""
    remote = remote_of(folder.parents[1])
    content = remote.read(marker_name(folder)) if remote else None
    return parse_marker(content, folder) if content else None


def bring_here(folder: Path) -> Path:
    """The folder of an output, its files copied from the storage behind its store where they are not here. StoreError where
    they are lost there."""
    remote = None if (folder / MARKER).exists() else remote_of(folder.parents[1])
    if remote is not None:
        with _locked(folder):
            if not (folder / MARKER).exists():
                _download(remote, folder)
    return folder


def is_shared(folder: Path) -> bool:
    """Whether the output that is complete here is also what the storage has, or there is no storage."""
    if remote_of(folder.parents[1]) is None or not (folder / MARKER).exists():
        return True  # what is not here was found there
    theirs = shared_marker(folder)
    return theirs is not None and theirs.output["content"] == read_marker(folder).output["content"]


def share(folder: Path, parts: Iterable[Path] = ()) -> None:
    """Give the complete output to the storage behind its store, or take the one that is there in its place. Its lock is held.
    `parts`: folders of outputs that are shared already, whose files it has too."""
    remote = remote_of(folder.parents[1])
    if remote is None:
        return
    if shared_marker(folder) is None:
        _upload(remote, folder, parts)
    if not is_shared(folder):
        _remove(folder)
        _download(remote, folder)


def remove_copy(folder: Path, is_locked: bool = False) -> None:
    """Remove this machine's copy of an output that the storage has, once nobody builds it or brings it here."""
    with nullcontext() if is_locked else _locked(folder):
        _remove(folder)


def _locked(folder: Path) -> AbstractContextManager[None]:
    make_folder(folder.parent)
    waiting = f"another process is at {folder.parent.name}/{folder.name}; waiting for it"
    return locked(folder.with_name(f".{folder.name}.lock"), waiting)


def _remove(folder: Path) -> None:
    """The marker first, so that half of it is never taken for an output."""
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _upload(remote: ObjectStore, folder: Path, parts: Iterable[Path]) -> None:
    """Each file, then the marker."""
    uploaded = {digest for part in parts for _, _, digest in known_marker(part).files.values()}
    files = {digest: folder / name for name, (_, _, digest) in read_marker(folder).files.items() if digest not in uploaded}

    def send(digest: str) -> None:
        if not remote.has(object_name(digest)):
            remote.upload(files[digest], object_name(digest))

    with ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
        list(pool.map(send, files))
    remote.write_new(marker_name(folder), (folder / MARKER).read_bytes())


def _download(remote: ObjectStore, folder: Path) -> None:
    """Copy the output here as `commit` writes one: files, marker, name. What turns out to be lost there loses its marker, so
    that the next run builds it."""
    marker = remote.read(marker_name(folder))
    if marker is None:
        raise StoreError(f"{remote.address}: {folder.parent.name}/{folder.name} was removed; run again, which builds it anew")
    files = parse_marker(marker, folder).files
    partial = folder.with_name(f"{key_of(folder)}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for place in {(partial / name).parent for name in files}:
        place.mkdir(parents=True, exist_ok=True)

    def receive(name: str) -> None:
        _, changed_ns, digest = files[name]
        remote.download(object_name(digest), partial / name)
        if file_digest(partial / name) != digest:
            remote.delete([object_name(digest)])
            raise StoreError(f"{remote.address}: {object_name(digest)} is damaged")
        os.utime(partial / name, ns=(changed_ns, changed_ns))  # what `read_output` believes by its size and time

    try:
        with ThreadPoolExecutor(MAX_CONNECTIONS) as pool:
            list(pool.map(receive, files))
    except StoreError as error:
        if all(remote.has(object_name(digest)) for _, _, digest in files.values()):
            raise  # of the connection
        remote.delete([marker_name(folder)])
        lost = f"{folder.parent.name}/{folder.name} lost files there; run again, which builds it anew"
        raise StoreError(f"{error}; {lost}") from None
    sync_tree(partial)
    (partial / MARKER).write_bytes(marker)
    sync_file(partial / MARKER)
    sync_folder(partial)
    os.replace(partial, folder)
    sync_folder(folder.parent)
