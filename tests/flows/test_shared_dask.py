"""Dask's workers that share no disk: each has a cache folder of its own, and the store is on an S3 server."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed import Client

from flows import stages
from tasks.engine.object_store import CACHE, cache_folder, remote_of
from tests.conftest import ROOT, SMALL_DEMO
from tests.flows.store_files import file_digests
from tests.flows.worker_kill import kill_at_second_shard
from tests.s3_server import new_address, s3_server

pytestmark = pytest.mark.usefixtures("prefect_server")
SETTINGS = [*SMALL_DEMO, "shards.images=2"]
NAMES = ("one", "two")


@pytest.fixture
def address(tmp_path, monkeypatch):
    with s3_server():
        monkeypatch.setenv(CACHE, str(tmp_path / "flow"))
        yield new_address()


@pytest.fixture
def workers(address, tmp_path):
    """A scheduler, and a worker a name → (the scheduler's address, the worker processes by name)."""
    started = []

    def start(name, command, *options):
        env = os.environ | {"PYTHONPATH": str(ROOT), CACHE: str(tmp_path / name)}
        words = [Path(sys.executable).with_name("dask"), command, *options, "--no-dashboard"]
        started.append(subprocess.Popen([str(word) for word in words], cwd=tmp_path, env=env))

    file = tmp_path / "scheduler.json"
    start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", file)
    for name in NAMES:
        start(name, "worker", "--scheduler-file", file, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--name", name)
    while not file.exists():
        time.sleep(0.05)
    with Client(scheduler_file=str(file), set_as_default=False) as client:
        client.wait_for_workers(len(NAMES), timeout=120)
        yield client.scheduler.address, dict(zip(NAMES, started[1:], strict=True))
    for process in reversed(started):
        process.kill()
        process.wait()


def _copy(tmp_path, name, address):
    """A machine's copy of the store."""
    return tmp_path / name / cache_folder(address).name


def _complete_parts(copy):
    """Names of the shards that were completed there; one that was at its marker when its worker died is none."""
    folders = [marker.parent for marker in copy.glob("refine-parts/[!.]*/stage.json")]
    return {folder.name for folder in folders if folder.suffix != ".partial"}


def test_workers_without_a_common_disk_leave_the_bytes_of_a_run_on_one_though_one_is_killed(address, workers, tmp_path):
    disk = tmp_path / "disk"
    stages.refine("demo", settings=SETTINGS, store=str(disk))
    scheduler, processes = workers
    killed = tmp_path / "killed"
    with Client(scheduler, set_as_default=False) as client:
        names = {worker["name"]: address for address, worker in client.scheduler_info(n_workers=-1)["workers"].items()}
        kill_at_second_shard(client, names["two"], "refine", killed)
    folder = stages.refine("demo", settings=SETTINGS, store=address, runner=f"dask:{scheduler}")
    assert killed.exists() and processes["two"].wait() == -signal.SIGKILL
    flow, copies = cache_folder(address), [_copy(tmp_path, name, address) for name in NAMES]
    assert Path(folder).parent.parent == flow
    assert file_digests(flow) == file_digests(disk)
    parts = [_complete_parts(copy) for copy in copies]
    assert len(parts[1]) == 1 and parts[0] - parts[1]  # the first may be fetched: what a task run returned died with its worker
    assert len({*parts[0], *parts[1]}) == len([*disk.glob("refine-parts/[!.]*")])
    assert not [*flow.glob("records/.*.alive")] and len([*remote_of(flow).listed("records/")]) == 1
