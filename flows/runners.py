"""Where the parts of a stage run: in turn in the flow's process, on threads, or on a Dask cluster.

A cluster is started, or connected to, when the first part needs it, so that a run that finds everything complete starts
none. Parts reach their workers as paths and digests; what they make goes straight to the store.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
from prefect.futures import as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect_dask import DaskTaskRunner

from tasks.build import Builder, Outputs, PartsBuilder, in_turn
from tasks.prefect_task import work_task
from tasks.progress import Counter
from tasks.stage import Place, Work

__all__ = ["parts_builder"]

THREADS = 8  # parts that wait for a network rather than compute


@contextmanager
def parts_builder(runner: str, place: Place) -> Iterator[PartsBuilder]:
    """Build parts as `runner` says; stages whose parts may not leave the process use its threads."""
    with ExitStack() as stack:
        runners: dict[str, Any] = {}

        def build(pieces: list[Work], one: Builder, counter: Counter) -> Outputs:
            kind = pieces[0].stage.parallel
            if kind == "workers" and runner == "sequential":
                return in_turn(pieces, one, counter)
            if kind not in runners:
                started = ThreadPoolTaskRunner(max_workers=THREADS) if kind == "threads" else _dask(runner, place)
                runners[kind] = stack.enter_context(started)
            return _submitted(runners[kind], pieces, counter, resources(pieces[0]) if kind == "workers" else {})

        yield build


def resources(work: Work) -> dict[str, float]:
    """What a Dask worker must offer to get the work: shards on a GPU go to workers started with `--resources GPU=1`."""
    return {"GPU": 1} if work.place.device == "cuda" else {}


def _dask(runner: str, place: Place) -> TaskRunner[Any]:
    """The cluster at the runner's address, or one on this machine: a worker a core, or one with the GPU."""
    address = runner.partition(":")[2]
    if address:
        return DaskTaskRunner(address=address)
    on_gpu = place.device == "cuda"
    return DaskTaskRunner(
        cluster_kwargs={
            "n_workers": 1 if on_gpu else os.cpu_count() or 1,
            "threads_per_worker": 1,  # a shard at a time; torch has its own threads
            "resources": {"GPU": 1} if on_gpu else {},
            "memory_limit": 0,  # a worker is not to be restarted because a model is large
            "dashboard_address": None,
            "env": {} if on_gpu else {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        }
    )


def _submitted(runner: TaskRunner[Any], pieces: list[Work], counter: Counter, needed: dict[str, float]) -> Outputs:
    """All parts at once; every one that can finish does before the first error is raised."""
    with dask.annotate(resources=needed) if needed else ExitStack():
        futures = {runner.submit(work_task(piece), {"work": piece}): piece.this_part for piece in pieces}
    states = {}
    for future in as_completed(list(futures)):
        part = futures[future]
        future.wait()
        states[part.name] = future
        counter.to(min(counter.total, counter.done + part.items))
    return {part.name: future.result() for future, part in futures.items()}
