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
from prefect_dask import DaskTaskRunner

from excel_core.errors import SettingError, WorkerError
from flows.interrupts import out_of_reach
from tasks.engine.build import Builder, Outputs, PartsBuilder, in_turn
from tasks.engine.outputs import StageOutput
from tasks.engine.prefect_task import work_task
from tasks.engine.progress import Counter, uncounted
from tasks.engine.stage import RunEnvironment, Work

__all__ = ["local_cluster", "parts_builder"]

THREADS = 8  # parts that wait for a network rather than compute
NUMBER_OF_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def parts_builder(runner: str, place: RunEnvironment) -> Iterator[PartsBuilder]:
    """Build parts as `runner` says; stages whose parts may not leave the process use its threads."""
    with ExitStack() as stack:
        runners: dict[str, TaskRunner[Any]] = {}

        def build(pieces: list[Work], one: Builder, counter: Counter) -> Outputs:
            kind = pieces[0].stage.parallel
            if kind == "workers" and runner == "sequential":
                return in_turn(pieces, one, counter)
            if kind not in runners:
                started = ThreadPoolTaskRunner(max_workers=THREADS) if kind == "threads" else _dask(runner, place, stack)
                runners[kind] = stack.enter_context(started)
                if isinstance(started, DaskTaskRunner):
                    _check_workers(out_of_reach(lambda: started.client))
            return _submitted(runners[kind], pieces, counter, resources(pieces[0]) if kind == "workers" else {})

        yield build


def resources(work: Work) -> dict[str, float]:
    """What a Dask worker must offer to get the work: shards on a GPU go to workers started with `--resources GPU=1`."""
    return {"GPU": 1} if work.on_gpu else {}


def _dask(runner: str, place: RunEnvironment, stack: ExitStack) -> DaskTaskRunner:
    """The cluster at the runner's address, or one on this machine, which ends with `stack`."""
    address = runner.partition(":")[2]
    if address:
        return DaskTaskRunner(address=address)
    cluster = stack.enter_context(out_of_reach(lambda: local_cluster(place)))
    stack.push(partial(_end_workers, cluster))
    return DaskTaskRunner(cluster=cluster)


def _end_workers(cluster: LocalCluster, kind: type[BaseException] | None, *error: Any) -> None:
    """When the run is stopped, its workers end at once: asked to, they would first finish what they are at."""
    if kind is not None and not issubclass(kind, Exception):
        for nanny in cluster.workers.values():
            nanny.auto_restart = False
            if nanny.pid:
                os.kill(nanny.pid, signal.SIGKILL)


def local_cluster(place: RunEnvironment, **changes: Any) -> LocalCluster:
    """Workers on this machine: one a core, or one with the GPU; `changes` to what LocalCluster is asked for."""
    gpu, cores = place.device == "cuda", os.cpu_count() or 1
    # A worker a core leaves one thread to each. Last bits hang on this number: set it for both to compare with another
    # runner, which takes all cores by itself.
    threads = os.environ.get("OMP_NUM_THREADS", str(cores) if gpu else "1")
    options = {
        "n_workers": 1 if gpu else cores,
        "threads_per_worker": 1,  # a shard at a time; torch has its own threads
        "resources": {"GPU": 1} if gpu else {},
        "memory_limit": 0,  # a worker is not to be restarted because a model is large
        "dashboard_address": None,
        "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"},  # any free port: several clusters on one machine
        "env": {name: os.environ.get(name, threads) for name in NUMBER_OF_THREADS},
    }
    # Few shards wait at a worker that is busy: if it dies, Dask holds that against all that are there.
    with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
        return LocalCluster(**options | changes)


def _check_workers(client: Client) -> None:
    """The mask guard is a process's: a worker that scores in one thread while it trains in another would fail."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    busy = sorted(address for address, worker in workers.items() if worker["nthreads"] > 1)
    if busy:
        raise SettingError(f"Dask workers with several threads ({', '.join(busy)}): start them with --nthreads 1")


def _submitted(runner: TaskRunner[Any], pieces: list[Work], counter: Counter, needed: dict[str, float]) -> Outputs:
    """All parts at once; every one that can finish does before the first error is raised."""
    with uncounted(), dask.annotate(resources=needed) if needed else nullcontext():
        futures: dict[PrefectFuture[StageOutput], Work] = {
            runner.submit(work_task(piece), {"work": piece}): piece for piece in pieces
        }
    done = 0
    for future in as_completed(list(futures)):
        future.wait()
        done += futures[future].this_part.items
        counter.to(done)
    return {piece.this_part.name: _result(future, piece) for future, piece in futures.items()}


def _result(future: PrefectFuture[StageOutput], piece: Work) -> StageOutput:
    try:
        return future.result()
    except KilledWorker as error:  # the task run cannot say so itself
        message = (
            f"{piece.name}: {error.allowed_failures + 1} Dask workers died over it, the last one {error.last_worker.address}"
        )
        with get_client(sync_client=True) as client:
            client.set_task_run_state(future.task_run_id, Crashed(message=message), force=True)
        raise WorkerError(f"{message}; the system kills them when memory runs out: a smaller cams.batch_size helps") from error
