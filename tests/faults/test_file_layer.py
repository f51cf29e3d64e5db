"""The file layer itself: what it counts, kills, fails and keeps, tried on writers of a few lines with known mistakes."""

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.disk_states import VARIANTS, Journal, keep_names, write_state
from tests.faults.file_layer import (
    FAIL_FROM,
    FAIL_ONCE,
    KILL_AFTER,
    KILL_BEFORE,
    KINDS,
    PRELOAD,
    Change,
    compiled_layer,
    read_log,
)
from tests.faults.targets import targets

# A writer's steps; each names a mistake when it is left out. The last file counts as written when the program ends.
WRITE = "file = open(store + '/.new', 'wb'); file.write(b'x' * 5000); file.flush()"
SYNC = "os.fsync(file.fileno())"
CLOSE = "file.close()"
FOLDER = "os.mkdir(store + '/folder')"
SYNC_STORE = "sync(store)"
RENAME = "os.replace(store + '/.new', store + '/folder/file')"
SYNC_FOLDER = "sync(store + '/folder')"
RIGHT = [WRITE, SYNC, CLOSE, FOLDER, SYNC_STORE, RENAME, SYNC_FOLDER]
START = """
import ctypes, json, os, sys
store, log, keep, arm = json.loads(sys.argv[1])
def sync(folder):
    place = os.open(folder, os.O_RDONLY); os.fsync(place); os.close(place)
layer = ctypes.CDLL(None)
layer.layer_begin(store.encode(), log.encode(), keep.encode())
layer.layer_arm(ctypes.c_long(arm[0]), *arm[1:])
"""


def _run(folder: Path, steps: list[str], number: int = 0, action: int = 0, error: int = 0, kinds: int = 0) -> int:
    """Run the steps in a process below the layer, in `folder`/store → its exit status."""
    for name in ("store", "keep"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    arguments = [str(folder / "store"), str(folder / "log"), str(folder / "keep"), [number, action, error, kinds]]
    command = [sys.executable, "-S", "-c", START + "\n".join(steps), json.dumps(arguments)]
    return subprocess.run(command, env=os.environ | {PRELOAD: str(compiled_layer())}, stderr=subprocess.DEVNULL).returncode


def _changes(folder: Path) -> list[str]:
    return [change.kind for change in read_log(folder / "log") if change.word == "done"]


def _contents(folder: Path, journal: Journal, variant: str, seed: int) -> bytes | None:
    """What the disk may hold of folder/file."""
    state = folder / f"{variant}{seed}"
    write_state(journal, folder / "keep", variant, random.Random(seed), state)
    file = state / "folder" / "file"
    return file.read_bytes() if file.exists() else None


def _may_be_lost(folder: Path, steps: list[str]) -> bool:
    """Whether a power cut at the end of the steps may leave anything but the file as it was written."""
    (folder / "keep").mkdir(parents=True)
    start = keep_names(folder / "store", folder / "keep")
    assert _run(folder, steps) == 0
    journal = Journal(start, read_log(folder / "log"))
    states = [_contents(folder, journal, variant, seed) for variant in dict.fromkeys(VARIANTS) for seed in range(4)]
    return any(content != b"x" * 5000 for content in states)


def test_a_writer_that_syncs_everything_loses_nothing(tmp_path):
    assert not _may_be_lost(tmp_path, RIGHT)


@pytest.mark.parametrize("missing", [SYNC, SYNC_STORE, SYNC_FOLDER])
def test_a_sync_that_is_missing_is_seen(tmp_path, missing):
    assert _may_be_lost(tmp_path, [step for step in RIGHT if step != missing])


def test_bytes_that_are_written_after_the_sync_are_seen(tmp_path):
    assert _may_be_lost(tmp_path, [WRITE, SYNC, "file.write(b'')", "os.pwrite(file.fileno(), b'x', 4999)", *RIGHT[2:]])


def test_a_cut_between_sync_and_rename_leaves_the_old_file(tmp_path):
    (tmp_path / "keep").mkdir()
    (tmp_path / "store" / "folder").mkdir(parents=True)
    (tmp_path / "store" / "folder" / "file").write_bytes(b"old")
    start = keep_names(tmp_path / "store", tmp_path / "keep")
    _run(tmp_path, [WRITE, SYNC, CLOSE, RENAME])
    journal = Journal(start, read_log(tmp_path / "log"))
    states = {_contents(tmp_path, journal, variant, seed) for variant in dict.fromkeys(VARIANTS) for seed in range(8)}
    assert states == {b"old", b"x" * 5000}  # never half of the new one


def test_each_change_can_be_killed_before_and_after(tmp_path):
    _run(tmp_path / "whole", RIGHT)
    kinds = _changes(tmp_path / "whole")
    assert kinds == ["create", "write", "sync", "mkdir", "sync-folder", "rename", "sync-folder"]
    for n in range(1, len(kinds) + 1):
        for action, done in ((KILL_BEFORE, n - 1), (KILL_AFTER, n)):
            folder = tmp_path / f"{n}-{action}"
            assert _run(folder, RIGHT, n, action) == -9
            assert _changes(folder) == kinds[:done]
            assert read_log(folder / "log")[-1].word == ("before" if action == KILL_BEFORE else "after")


def test_a_change_fails_once_or_from_there_on(tmp_path):
    every = (1 << len(KINDS)) - 1
    steps = [
        "failures = 0",
        "for n in range(5):",
        "    try: os.mkdir(f'{store}/{n}')",
        f"    except OSError as error: failures += error.errno == {errno.ENOSPC}",
        "sys.exit(failures)",
    ]
    assert _run(tmp_path / "once", steps, 2, FAIL_ONCE, errno.ENOSPC, every) == 1
    assert _run(tmp_path / "from", steps, 2, FAIL_FROM, errno.ENOSPC, every) == 4
    assert _run(tmp_path / "others", steps, 2, FAIL_FROM, errno.ENOSPC, 1 << KINDS.index("write")) == 0


def test_writers_in_c_and_rust_go_through_it(tmp_path):
    steps = [
        "sys.path[:0] = " + repr([path for path in sys.path if path]),
        "import numpy, pandas, PIL.Image, safetensors.numpy",
        "numpy.save(store + '/array.npy', numpy.zeros(3))",
        "pandas.DataFrame({'a': [1]}).to_parquet(store + '/table.parquet')",
        "PIL.Image.new('L', (8, 8)).save(store + '/picture.png')",
        "open(store + '/w.safetensors', 'wb').write(safetensors.numpy.save({'a': numpy.zeros(3)}))",
    ]
    assert _run(tmp_path, steps) == 0
    log = [change for change in read_log(tmp_path / "log") if change.word == "done"]
    for name in ("array.npy", "table.parquet", "picture.png", "w.safetensors"):
        assert {change.kind for change in log if change.path == name} == {"create", "write"}


def test_changes_are_counted_from_each_place():
    log = [Change("note", 0, "", 0, "a", "", "a"), Change("done", 1, "create", 5, "x", "", "a")]
    log += [Change("note", 1, "", 0, "b", "", "b"), Change("done", 2, "write", 5, "x", "", "b")]
    assert [(target.place, target.change, target.kind) for target in targets(log)] == [("a", 1, "create"), ("b", 1, "write")]
