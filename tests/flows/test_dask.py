"""Parts on Dask's workers: other processes, the same bytes, one model each, and what a worker's death costs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import dask
import httpx
import pytest
from distributed import Client
from prefect.client.orchestration import get_client

from excel_core.errors import DataError, MaskLeakError, SettingError, WorkerError
from flows import runners, stages
from tasks.engine.executor import Step, part_steps
from tasks.engine.output import read_marker
from tasks.engine.prefect_task import step_task
from tasks.engine.stage import RunEnvironment
from tasks.pipeline import STAGES
from tests.conftest import ROOT, SMALL_DEMO
from tests.flows.server import task_states
from tests.flows.store_files import file_digests
from tests.flows.toys import build_toys, pids_of, toys
from tests.flows.worker_kill import kill_at_second_shard

pytestmark = pytest.mark.usefixtures("prefect_server")
SHARDED = ("cams", "refine", "dynamic", "predict", "evaluate", "sweep", "sweep_lvc")


@pytest.fixture(scope="module")
def cluster(prefect_server):
    """Two workers as `runner="dask"` starts them; a part may take one of them down, not two."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        # By its address, as the user's own clusters are, and therefore without a certificate.
        local = runners.local_cluster(RunEnvironment(store="."), n_workers=2, security=None)
    with local, Client(local, set_as_default=False) as client:
        yield client


@pytest.fixture
def address(cluster):
    return f"dask:{cluster.scheduler.address}"


@pytest.fixture
def environment(tmp_path):
    return RunEnvironment(store=tmp_path)


def _pids(cluster):
    return set(cluster.run(os.getpid).values())


def _loads():
    """How often this process loaded a CLIP, and how often it had one."""
    from tasks.inputs.models import cached_clip

    return cached_clip.cache_info()


def _part_pids(store, kind):
    markers = [read_marker(path.parent) for path in (store / f"{kind}-parts").glob("[!.]*/stage.json")]
    return Counter(marker.origin.pid for marker in markers)


@pytest.fixture(scope="module")
def in_turn(tmp_path_factory, prefect_server):
    """The store of a run up to `evaluate` in one process."""
    store = tmp_path_factory.mktemp("sequential") / "store"
    stages.evaluate("demo", settings=SMALL_DEMO, store=str(store))
    return store


def test_shards_are_built_by_two_processes_to_the_same_bytes(in_turn, cluster, address, tmp_path):
    stages.evaluate("demo", settings=SMALL_DEMO, store=str(tmp_path), runner=address)
    workers = _pids(cluster)
    assert len(workers) == 2 and os.getpid() not in workers
    built = {kind: _part_pids(tmp_path, kind) for kind in SHARDED}
    assert all(set(pids) == workers for pids in built.values()), built
    assert set(_part_pids(tmp_path, "describe")) == {os.getpid()}
    assert file_digests(tmp_path) == file_digests(in_turn)
    for load in cluster.run(_loads).values():  # once a worker, not once a shard
        assert load.misses == 1 and load.hits > len(SHARDED)


def test_a_killed_worker_costs_its_own_shard(cluster, address, tmp_path):
    """SIGKILL of a worker when it begins its second shard."""
    settings = [*SMALL_DEMO, "shards.images=2"]
    whole, hurt, killed = tmp_path / "whole", tmp_path / "hurt", tmp_path / "killed"
    stages.refine("demo", settings=settings, store=str(whole))
    stages.cams("demo", settings=settings, store=str(hurt))
    victim, pid = next(iter(cluster.run(os.getpid).items()))
    kill_at_second_shard(cluster, victim, "refine", killed)
    stages.refine("demo", settings=settings, store=str(hurt), runner=address)
    assert killed.exists() and pid not in _pids(cluster)
    built = _part_pids(hurt, "refine")
    assert built[pid] == 1  # it is not built again, though what its task run returned died with the worker
    assert file_digests(hurt) == file_digests(whole)
    assert sum(built.values()) == len(list(whole.glob("refine-parts/[!.]*"))) >= 6


def test_only_the_part_whose_worker_died_is_tried_again(cluster, address, environment):
    job = toys(environment, a="build", b="die once", c="build", d="build")
    output = build_toys(job, address)
    assert (output.folder / "all.txt").read_text() == "abcd"
    tries = Counter(mark.name.partition("-")[0] for mark in (environment.store / "tries").glob("*"))
    assert tries == {"a": 1, "b": 2, "c": 1, "d": 1}


@pytest.mark.parametrize("run_on", ["workers", "threads"])
def test_parts_that_are_complete_end_as_cached_and_reach_the_join(cluster, address, environment, run_on):
    """A state that a task returns itself carries its output through Dask and through threads."""
    job = toys(environment, a="build", b="build", c="build")
    job = replace(job, stage=replace(job.stage, work=replace(job.stage.work, run_on=run_on)))
    first = build_toys(job, address)
    shutil.rmtree(first.folder)
    again = build_toys.with_options(flow_run_name=f"cached on {run_on}")(job, address)
    assert again.content == first.content and (again.folder / "all.txt").read_text() == "abc"
    states = task_states(f"cached on {run_on}")
    assert states == {"toys": "Completed", **dict.fromkeys(("toys a", "toys b", "toys c"), "Cached")}


def test_a_part_that_kills_every_worker_is_one_message(cluster, address, environment):
    job = toys(environment, **dict.fromkeys("bcdefgh", "build"), a="die")  # last: Dask spreads the first few over busy workers
    with pytest.raises(WorkerError, match="toys a: 2 Dask workers died over it, the last one tcp://.*memory"):
        build_toys.with_options(flow_run_name="deadly")(job, address)
    assert set(pids_of(job)) == set("bcdefgh")
    states = task_states("deadly")
    assert states.pop("toys a") == "Crashed"
    assert len(states) == 7 and set(states.values()) <= {"Completed", "Cached"}  # cached: looked up again, its worker died


def test_the_other_parts_finish_before_an_error_is_raised(cluster, address, environment):
    job = toys(environment, a="fail", **dict.fromkeys("bcdefg", "build"))
    with pytest.raises(DataError, match="toys a fails for good"):
        build_toys(job, address)
    assert set(pids_of(job)) == set("bcdefg")
    assert not list(environment.store.glob("toys/[!.]*"))


def test_masks_are_guarded_in_workers(cluster, address, environment):
    with pytest.raises(MaskLeakError, match="toys: open of the segmentation mask"):
        build_toys(toys(environment, a="open a mask"), address)


def test_runner_dask_starts_workers_of_its_own(environment):
    """Two parts that wait for each other's process."""
    job = toys(environment, a="meet", b="meet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "cpu_count", lambda: 2)
        build_toys(job, "dask")
    pids = set(pids_of(job).values())
    assert len(pids) == 2 and os.getpid() not in pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture
def scheduler(tmp_path, prefect_server):
    """`dask scheduler` and, one a call, `dask worker` → (the runner, start_worker(*options))."""
    file, started = tmp_path / "scheduler.json", []

    def start(what, *options):
        command = [Path(sys.executable).with_name("dask"), what, "--scheduler-file", file, "--no-dashboard", *options]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen([str(word) for word in command], cwd=tmp_path, env=env, start_new_session=True))

    start("scheduler", "--host", "127.0.0.1", "--port", "0")
    while not file.exists():
        assert started[0].poll() is None
        time.sleep(0.05)
    runner = f"dask:{json.loads(file.read_text())['address']}"
    yield runner, lambda *options: start("worker", "--host", "127.0.0.1", *options)
    for process in reversed(started):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def test_shards_that_need_a_gpu_go_where_one_is(scheduler, environment, monkeypatch):
    runner, start_worker = scheduler
    start_worker("--nthreads", "1", "--name", "plain")
    start_worker("--nthreads", "1", "--name", "gpu", "--resources", "GPU=1")
    with Client(runner.partition(":")[2], set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        pids = client.run(os.getpid)
        names = {worker["name"]: pids[address] for address, worker in client.scheduler_info()["workers"].items()}
        both = toys(environment, a="meet", b="meet")
        build_toys(both, runner)
        assert set(pids_of(both).values()) == set(names.values())
        monkeypatch.setattr(runners, "resources", lambda work: {"GPU": 1})
        one = toys(environment, **dict.fromkeys("cdefgh", "build"))
        build_toys(one, runner)
        assert set(pids_of(one).values()) == {names["gpu"]} and len(pids_of(one)) == 6


def test_workers_with_several_threads_are_refused(scheduler, environment):
    runner, start_worker = scheduler
    start_worker("--nthreads", "2", "--no-nanny")
    with Client(runner.partition(":")[2], set_as_default=False) as client:
        client.wait_for_workers(1, timeout=120)
    with pytest.raises(SettingError, match="several threads .*--nthreads 1"):
        build_toys(toys(environment, a="build"), runner)


def test_the_gpus_tag_is_on_what_computes_there(environment):
    on_gpu = toys(environment.model_copy(update={"device": "cuda"}), a="build")
    (part,) = part_steps(on_gpu)
    assert step_task(part).tags == {"gpu"} and runners.resources(part) == {"GPU": 1}
    (plain,) = part_steps(toys(environment, a="build"))
    for step in (Step(on_gpu), plain):  # joining parts computes nothing there
        assert step_task(step).tags == set() and runners.resources(step) == {}
    others = {"knowledge", "train", "curve", "figures", "proposals"}
    assert {name for name, stage in STAGES.items() if stage.on_device} == ({*SHARDED} | others) - {"evaluate"}


def test_a_limit_of_one_keeps_gpu_tasks_apart(environment):
    """On threads of one process: with the limit nobody is ever beside another, without it two parts meet. (In this order:
    Prefect 3.8 looks for a limit once a process, so one that is made later goes unseen.)"""
    gpu = environment.model_copy(update={"device": "cuda"})
    limited, free = (
        replace(job, stage=replace(job.stage, work=replace(job.stage.work, run_on="threads")))
        for job in (toys(gpu, a="be alone", b="be alone", c="be alone"), toys(gpu, d="meet", e="meet"))
    )
    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(tag="gpu", concurrency_limit=1)
        build_toys(limited, "sequential")
        client.delete_concurrency_limit_by_tag("gpu")
    build_toys(free, "sequential")
    assert set(pids_of(limited)) == set("abc") and set(pids_of(free)) == set("de")


def test_a_cluster_of_this_machine_takes_work_from_its_run_alone():
    """Scheduler, nannies and workers listen on ports that every user of the machine can reach."""
    with runners.local_cluster(RunEnvironment(store="."), n_workers=1) as local:
        with Client(local, set_as_default=False) as client:
            assert client.submit(os.getpid).result() != os.getpid()
            workers = client.scheduler_info()["workers"]
            addresses = [local.scheduler.address, *workers, *(worker["nanny"] for worker in workers.values())]
        assert {address.partition(":")[0] for address in addresses} == {"tls"}
        for address in addresses:
            with pytest.raises((OSError, RuntimeError)):
                _identity(address.replace("tls://", "tcp://"))
            with pytest.raises((OSError, RuntimeError, TypeError)):
                _identity(address)
        for page in ("status", "health", "json/counts.json", "info/main/workers.html", "metrics"):
            assert httpx.get(f"http://127.0.0.1:{local.scheduler.http_server.port}/{page}").status_code == 404


def _identity(address):
    """What a node says of itself to somebody without its certificate."""
    import asyncio

    from distributed.core import rpc

    async def ask():
        async with rpc(address, timeout=5) as node:
            return await asyncio.wait_for(node.identity(), 5)

    return asyncio.run(ask())


@pytest.fixture
def gpu_workers(scheduler):
    """Two workers that say that they have a GPU each → the runner."""
    runner, start_worker = scheduler
    for name in ("one", "two"):
        start_worker("--nthreads", "1", "--name", name, "--resources", "GPU=1")
    with Client(runner.partition(":")[2], set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
    return runner


def test_gpus_workers_get_several_parts_at_a_time_and_few_at_the_end(gpu_workers, environment):
    gpu = environment.model_copy(update={"device": "cuda"})
    job = toys(gpu, **{f"part{i:02}": "build" for i in range(20)})
    steps = part_steps(job)
    sizes = [len(group) for group in runners.grouped(steps, 2)]
    assert sizes == [5, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1] and [s for g in runners.grouped(steps, 2) for s in g] == steps
    assert max(len(group) for group in runners.grouped(steps * 20, 2)) == runners.MAX_GROUP
    assert all(len(group) == 1 for group in runners.grouped(part_steps(toys(environment, a="build", b="build")), 1))
    output = build_toys.with_options(flow_run_name="in groups")(job, gpu_workers)
    assert list(output.parts) == [step.part.name for step in steps] and len(set(pids_of(job).values())) == 2
    states = task_states("in groups")
    assert states["toys part00 and 4 more"] == "Completed" and len(states) == len(sizes) + 1
    shutil.rmtree(output.folder)
    build_toys.with_options(flow_run_name="groups again")(job, gpu_workers)
    states = task_states("groups again")
    assert states.pop("toys") == "Completed" and set(states.values()) == {"Cached"}


def test_the_others_of_a_group_finish_before_an_error_is_raised(gpu_workers, environment):
    gpu = environment.model_copy(update={"device": "cuda"})
    deeds = {f"part{i:02}": "fail" if i == 1 else "build" for i in range(20)}
    job = toys(gpu, **deeds)
    with pytest.raises(DataError, match="toys part01 fails for good"):
        build_toys(job, gpu_workers)
    assert set(pids_of(job)) == {name for name, deed in deeds.items() if deed == "build"}


def test_runner_dask_starts_a_worker_a_gpu(environment, monkeypatch):
    """Without a GPU: two are said to be there."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu = environment.model_copy(update={"device": "cuda"})
    with runners.local_cluster(gpu, security=None) as local, Client(local, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        assert sorted(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == ["0", "1"]
        assert [worker["resources"] for worker in client.scheduler_info()["workers"].values()] == [{"GPU": 1}] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-8f6f, 5")
    assert runners.gpu_names() == ["3", "GPU-8f6f", "5"]
