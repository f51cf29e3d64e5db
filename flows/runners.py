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
from flows.interrupts import out_of_reach
from tasks.engine.executor import BuildParts, BuildStep, Outputs, Step, in_turn
from tasks.engine.output import StageOutput
from tasks.engine.prefect_task import step_task
from tasks.engine.progress import Counter, uncounted
from tasks.engine.stage import RunEnvironment, Sharded

__all__ = ["local_cluster", "parts_builder"]

MAX_THREADS = 8  # parts that wait for a network rather than compute
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
            return _submitted(runners[kind], steps, counter, resources(steps[0]) if kind == "workers" else {})

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
    """Workers on this machine: one a core, or one with the GPU; `changes` to what LocalCluster is asked for."""
    gpu, cores = environment.device == "cuda", os.cpu_count() or 1
    # A worker a core leaves one thread to each. Last bits hang on this number: set it for both to compare with another
    # runner, which takes all cores by itself.
    threads = os.environ.get("OMP_NUM_THREADS", str(cores) if gpu else "1")
    options = {
        "n_workers": 1 if gpu else cores,
        "threads_per_worker": 1,  # a shard at a time; torch has its own threads
        "resources": {"GPU": 1} if gpu else {},
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
        return LocalCluster(**options | changes)


def _check_workers(client: Client) -> None:
    """The mask guard is a process's: a worker that scores in one thread while it trains in another would fail."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    busy = sorted(address for address, worker in workers.items() if worker["nthreads"] > 1)
    if busy:
        raise SettingError(f"Dask workers with several threads ({', '.join(busy)}): start them with --nthreads 1")


def _submitted(runner: TaskRunner[Any], steps: list[Step], counter: Counter, needed: dict[str, float]) -> Outputs:
    """All parts at once; every one that can finish does before the first error is raised."""
    with uncounted(), dask.annotate(resources=needed) if needed else nullcontext():  # type: ignore[attr-defined]
        futures: dict[PrefectFuture[StageOutput], Step] = {
            runner.submit(step_task(step), {"step": step}): step for step in steps
        }
    done = 0
    for future in as_completed(list(futures)):
        future.wait()
        done += futures[future].items
        counter.to(done)
    return {step.part.name: _result(future, step) for future, step in futures.items() if step.part is not None}


def _result(future: PrefectFuture[StageOutput], step: Step) -> StageOutput:
    try:
        return future.result().in_store(step.job.environment.store)  # a worker of another machine has another folder
    except KilledWorker as error:  # the task run cannot say so itself
        message = (
            f"{step.name}: {error.allowed_failures + 1} Dask workers died over it, the last one {error.last_worker.address}"
        )
        with get_client(sync_client=True) as client:
            client.set_task_run_state(future.task_run_id, Crashed(message=message), force=True)
        raise WorkerError(f"{message}; the system kills them when memory runs out: a smaller cams.batch_size helps") from error
