"""What disk and memory refuse is one line: full disks, too many files, read-only stores, stores that are removed, no memory."""

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from excel_core.errors import OutOfMemoryError, StoreError
from tasks.engine.executor import build_stage
from tasks.engine.failures import in_one_line
from tasks.engine.stage import StageResult
from tasks.history.run_record import start_record
from tests.conftest import ROOT, SMALL_DEMO
from tests.tasks.test_stage import _job

SETTINGS = [part for setting in SMALL_DEMO for part in ("--set", setting)]


def _can_mount():
    """Whether this process may mount a disk of its own, as root of a machine or a container may."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not shutil.which("unshare") or not _can_mount(), reason="needs the right to mount")


def _mounted(mount, code, *arguments):
    """What `code` prints in a process that sees what `mount`, a line of shell, has mounted, and nobody else."""
    command = f'{mount} && exec "$@"'
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


WORLD = """
import sys
from pathlib import Path
from excel_core.config.presets import preset
from excel_core.errors import StoreError
from tasks.engine.stage import RunEnvironment
from tests.pipeline_runs import follow
try:
    follow(preset("demo"), RunEnvironment(store=Path(sys.argv[1])), "world")
except StoreError as error:
    print(error)
"""


@needs_mounts
@pytest.mark.parametrize(
    ("limit", "said"),
    [("nr_inodes=40", "No space left on device: .*MiB and 0 files free"), ("size=200k", ".*; 0 MiB and [0-9]+ files free")],
)
def test_a_disk_that_is_full_of_bytes_or_of_files(tmp_path, limit, said):
    mount = f"mount -t tmpfs -o {limit} none {tmp_path}"
    (line,) = _mounted(mount, WORLD, tmp_path).splitlines()
    assert re.match(rf"world: cannot write to {tmp_path} \({said}\)\. Finished .* make room", line), line


COMMANDS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from flows.cli import main
results = []
for arguments in json.loads(sys.argv[1]):
    sys.argv, out, status = ["excel", *arguments], io.StringIO(), 0
    try:
        with redirect_stdout(out), redirect_stderr(out):
            main()
    except SystemExit as end:
        status = end.code
    results.append([status, out.getvalue()])
print(json.dumps(results))
"""


@needs_mounts
def test_a_complete_store_on_a_read_only_disk_can_be_looked_at(chain, small_run, tmp_path):
    outputs, environment = chain
    store = shutil.copytree(environment.store, tmp_path / "store", ignore=shutil.ignore_patterns(".*lock", "records"))
    record = start_record("excel", small_run, environment.model_copy(update={"store": store}))
    for output in outputs.values():
        record.use(output, cached=True)
    record.note_own(outputs)
    record.end("complete")
    (store / "records" / ".number.lock").unlink()
    shutil.rmtree(store / "texts")
    page = store / "report" / outputs["report"].key / "index.html"
    page.write_text(page.read_text() + " ")
    before = sorted(store.rglob("*"))
    photo = next((store / "world").rglob("*.jpg"))
    commands = [
        ["plan", "demo", *SETTINGS],
        ["runs"],
        ["compare", "latest", "latest"],
        ["export", "latest", "--format", "palette", "--what", "pseudo", "--split", "train", "--out", str(tmp_path / "export")],
        ["segment", str(photo), "--weights", "latest", "--out", str(tmp_path / "a")],
        ["segment", str(photo), "--classes", "dog", "--clip", "excel-tiny", "--out", str(tmp_path / "b")],
        ["verify"],
        ["gc", "--yes"],
        ["demo", *SETTINGS],
    ]
    mount = f"mount --bind {store} {store} && mount -o remount,bind,ro {store}"
    printed = _mounted(mount, COMMANDS, json.dumps([[*command, "--store", str(store)] for command in commands]))
    plan, runs, compare, export, segment, by_words, verify, gc, demo = json.loads(printed.splitlines()[-1])
    assert (plan[0], runs[0], compare[0], export[0], segment[0], by_words[0]) == (0,) * 6, printed
    assert record.id in runs[1] and any((tmp_path / "export").rglob("*.png"))
    assert (tmp_path / "a" / "photos.json").exists() and (tmp_path / "b" / "photos.json").exists()
    assert verify[0] == 1 and f"cannot be marked as damaged from here: {page.parent}" in verify[1]
    for status, text in (gc, demo):
        assert (status == 0 and "nothing to remove" in text) or (status == 2 and "Read-only file system" in text), text
        assert "Traceback" not in text
    assert sorted(store.rglob("*")) == before


def test_a_store_that_is_removed_under_a_run(small_run, tmp_path):
    store = tmp_path / "store"

    def build(job, folder):
        shutil.rmtree(store)
        (folder / "x").write_text("x")
        return StageResult()

    with pytest.raises(StoreError, match=f"toy: {store} was removed while it was in use; run again"):
        build_stage(_job(build, store))
    record = start_record("toy", small_run, _job(build, store).environment)
    shutil.rmtree(store)
    with pytest.raises(StoreError, match="was removed while it was in use"):
        record.end("complete")
    assert not store.exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.ENOENT])
def test_errors_of_a_disk_while_locking_building_or_sealing(tmp_path, monkeypatch, number):
    def fail(*arguments, **options):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))

    def build(job, folder):
        (folder / "x").write_text("x")
        return StageResult()

    places = [(os, "open"), ("tasks.engine.executor", "commit"), ("tasks.engine.executor", "empty_folder")]
    for place in places:
        with monkeypatch.context() as patch:
            if place[0] is os:
                patch.setattr("tasks.engine.lock.os.open", fail)
            else:
                patch.setattr(".".join(place), fail)
            with pytest.raises(StoreError, match=f"^toy: .*{os.strerror(number)}") as raised:
                build_stage(_job(build, tmp_path))
            assert "\n" not in str(raised.value)
    assert build_stage(_job(build, tmp_path)).content


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: _raise(OSError(errno.ENOLCK, "No locks available")))
    with pytest.raises(StoreError, match="this file system has no locks"):
        build_stage(_job(lambda job, folder: StageResult(), tmp_path))


def _raise(error):
    raise error


@pytest.mark.parametrize(
    "work",
    [
        lambda: np.empty(2**60, np.uint8),
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: _raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …")),
        lambda: _raise(OSError(errno.ENOMEM, "Cannot allocate memory")),
    ],
)
def test_no_memory(tmp_path, work):
    with pytest.raises(
        OutOfMemoryError, match="^toy: memory does not suffice .*Finished stages and shards are kept;"
    ) as raised:
        build_stage(_job(lambda job, folder: work(), tmp_path))
    assert "\n" not in str(raised.value)


def test_what_escapes_from_a_command():
    assert in_one_line(OSError(errno.EROFS, "Read-only file system", "/store/x")) == "Read-only file system: /store/x"
    assert in_one_line(MemoryError()).startswith("memory does not suffice (MemoryError)")
    assert in_one_line(StoreError("as it is")) == "as it is"
    assert in_one_line(KeyError("a mistake")) is None is in_one_line(RuntimeError("another"))
