"""Where the parts of a stage run: in turn in the flow's process, on threads, or on a Dask cluster.

A cluster is started, or connected to, when the first part needs it, so that a run that finds everything complete starts
none. Parts reach their workers as paths and digests; what they make goes straight to the store.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster
from prefect.client.orchestration import get_client
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Crashed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from excel_core.errors import SettingError, WorkerError
from flows.gpu_cluster import GpuCluster, gpu_names
from flows.interrupts import out_of_reach
from tasks.engine.executor import BuildParts, BuildStep, Outputs, Step, in_turn
from tasks.engine.output import StageOutput
from tasks.engine.prefect_task import submit_steps
from tasks.engine.progress import Counter, uncounted
from tasks.engine.stage import RunEnvironment, Sharded

__all__ = ["grouped", "local_cluster", "parts_builder"]

MAX_THREADS = 8  # parts that wait for a network rather than compute
MAX_GROUP = 16  # parts of a task run, so that progress is seen and a worker that dies costs little
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def parts_builder(runner: str, environment: RunEnvironment) -> Iterator[BuildParts]:
    """Build parts as `runner` says; stages whose parts may not leave the process use its threads."""
    with ExitStack() as stack:
        runners: dict[str, TaskRunner[Any]] = {}

        def build(steps: list[Step], build_step: BuildStep, counter: Counter) -> Outputs:
            work = steps[0].job.stage.work
            assert isinstance(work, Sharded)
            kind = work.run_on
            if kind == "workers" and runner == "sequential":
                return in_turn(steps, build_step, counter)
            if kind not in runners:
                started = (
                    ThreadPoolTaskRunner(max_workers=MAX_THREADS) if kind == "threads" else _dask(runner, environment, stack)
                )
                runners[kind] = stack.enter_context(started)
                if isinstance(started, DaskTaskRunner):
                    _check_workers(out_of_reach(lambda: started.client))
            if kind == "threads":
                return _submitted(runners[kind], [[step] for step in steps], counter, {})
            amounts = resources(steps[0])
            return _submitted(runners[kind], grouped(steps, _workers(runners[kind], amounts)), counter, amounts)

        yield build


def resources(step: Step) -> dict[str, float]:
    """What a Dask worker must offer to get the step: shards on a GPU go to workers started with `--resources GPU=1`."""
    return {"GPU": 1} if step.on_gpu else {}


def _dask(runner: str, environment: RunEnvironment, stack: ExitStack) -> DaskTaskRunner:
    """The cluster at the runner's address, or one on this machine, which ends with `stack`."""
    address = runner.partition(":")[2]
    if address:
        return DaskTaskRunner(address=address)
    cluster = stack.enter_context(out_of_reach(lambda: local_cluster(environment)))
    stack.push(partial(_end_workers, cluster))
    return DaskTaskRunner(cluster=cluster)


def _end_workers(cluster: LocalCluster, kind: type[BaseException] | None, *error: Any) -> None:
    """When the run is stopped, its workers end at once: asked to, they would first finish what they are at."""
    if kind is not None and not issubclass(kind, Exception):
        for nanny in cluster.workers.values():
            nanny.auto_restart = False
            if nanny.pid:
                os.kill(nanny.pid, signal.SIGKILL)


def local_cluster(environment: RunEnvironment, **changes: Any) -> LocalCluster:
    """Workers on this machine: one a core, or one a GPU, which sees that GPU alone; `changes` to what LocalCluster is asked
    for."""
    gpus, cores = gpu_names() if environment.device == "cuda" else [], os.cpu_count() or 1
    # A worker a core leaves one thread to each. Last bits depend on this number: set it for both to compare with another
    # runner, which takes all cores by itself.
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // len(gpus))) if gpus else "1")
    options = {
        "n_workers": cores,
        "threads_per_worker": 1,  # a shard at a time; torch has its own threads
        "memory_limit": 0,  # a worker is not to be restarted because a model is large
        "dashboard_address": None,
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0", "dashboard": False},  # any free port: several clusters
        "env": {name: os.environ.get(name, threads) for name in THREAD_VARIABLES},
        # A certificate of this cluster's own: else every user of the machine could send it functions to run.
        "security": True,
    }
    settings = {
        # Few shards wait at a worker that is busy: if it dies, Dask holds that against all that are there.
        "distributed.scheduler.worker-saturation": 1.0,
        # What Dask tells of itself by HTTP, it tells everybody on this machine.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with dask.config.set(settings):
        return GpuCluster(gpus, **options | changes) if gpus else LocalCluster(**options | changes)


def _workers(runner: TaskRunner[Any], needed: dict[str, float]) -> int:
    """How many workers offer what is needed; at least 1, since others may come."""
    assert isinstance(runner, DaskTaskRunner)
    workers = runner.client.scheduler_info(n_workers=-1)["workers"].values()
    return max(1, sum(all(worker["resources"].get(name, 0) >= amount for name, amount in needed.items()) for worker in workers))


def _check_workers(client: Client) -> None:
    """The mask guard is a process's: a worker that scores in one thread while it trains in another would fail."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    busy = sorted(address for address, worker in workers.items() if worker["nthreads"] > 1)
    if busy:
        raise SettingError(f"Dask workers with several threads ({', '.join(busy)}): start them with --nthreads 1")


def _submitted(runner: TaskRunner[Any], groups: list[list[Step]], counter: Counter, needed: dict[str, float]) -> Outputs:
    """A task run a group, all at once; every part that can finish does before the first error is raised."""
    with uncounted(), dask.annotate(resources=needed) if needed else nullcontext():  # type: ignore[attr-defined]
        futures = {submit_steps(runner, group): group for group in groups}
    items_done = 0
    for future in as_completed(list(futures)):
        future.wait()
        items_done += sum(step.items for step in futures[future])
        counter.to(items_done)
    return {name: output for future, group in futures.items() for name, output in _results(future, group).items()}


def grouped(steps: list[Step], workers: int) -> list[list[Step]]:
    """Parts in groups, each of them a task run. What Prefect adds to a task run on Dask, some 60 ms, is nothing beside a shard
    on a CPU and a third of one on a GPU. So a GPU's worker gets several at a time: many first, few at the end, when all workers
    are to be done together."""
    if not steps or not steps[0].on_gpu:
        return [[step] for step in steps]
    groups, ungrouped = [], steps
    while ungrouped:
        size = min(MAX_GROUP, max(1, len(ungrouped) // (2 * workers)))
        groups.append(ungrouped[:size])
        ungrouped = ungrouped[size:]
    return groups


def _results(future: PrefectFuture[Any], group: list[Step]) -> Outputs:
    step = group[0]
    try:
        task_result = future.result()
    except KilledWorker as error:  # the task run cannot say so itself
        message = (
            f"{step.name}: {error.allowed_failures + 1} Dask workers died over it, the last one {error.last_worker.address}"
        )
        with get_client(sync_client=True) as client:
            client.set_task_run_state(future.task_run_id, Crashed(message=message), force=True)
        raise WorkerError(f"{message}; the system kills them when memory runs out: a smaller cams.batch_size helps") from error
    outputs: list[StageOutput] = task_result if len(group) > 1 else [task_result]
    store = step.job.environment.store  # a worker of another machine has another folder
    return {s.part.name: output.in_store(store) for s, output in zip(group, outputs, strict=True) if s.part is not None}
