"""What Prefect and Dask add to a shard: parts that do next to nothing, built in a plain loop and by each runner.

    OMP_NUM_THREADS=1 python -m bench.overhead [--parts 200] [--rounds 3] [--json FILE]

Rounds alternate between the ways, and medians over rounds are compared, so that a machine that slows down meanwhile
slows all of them. A server and a cluster are started before the clock.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch and dask

from distributed import Client  # isort: skip
from prefect import flow
from prefect.testing.utilities import prefect_test_harness

from excel_core.config import RunSpec
from excel_core.config.presets import preset
from flows.runners import local_cluster, parts_builder
from tasks.engine.executor import build_stage
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.prefect_task import run_step
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage

IMAGES = 10_582  # VOC's training images with its augmented set
# Seconds per image: the cheapest shards there are (CAMs at 1,000 images/s on a GPU), and a CPU's.
SECONDS_PER_IMAGE = {"CAMs, GPU": 1 / 1000, "CAMs, CPU (ViT-B/16)": 0.87, "CAMs and refinement, CPU, at least": 1.17}
SHARDS = (64, 128, 256, 512, 1024, 2048)
GROUPED = "dask, workers with a GPU"  # which get several shards a task run; no GPU is used


def tiny_job(store: Path, parts: int, device: str = "cpu") -> Job:
    """A stage of `parts` parts, each a file of a few bytes. `device`: what it says that it computes on."""
    stage = Stage(
        "tiny",
        reads=(),
        makes="nothing",
        work=Sharded(partial(_parts, parts), _build_part, _join),
        key=KeyParts(settings=_settings),
        on_device=True,
    )
    return Job(stage, preset("demo"), RunEnvironment(store=store, device=device), {})


def _settings(run: RunSpec) -> dict[str, Any]:
    return {}


def _parts(count: int, job: Job) -> list[Part]:
    return [Part(name=f"part{i}", items=1, key={"number": i}) for i in range(count)]


def _build_part(job: Job, part: Part, folder: Path) -> StageResult:
    (folder / "part.txt").write_text(part.name, encoding="utf-8")
    return StageResult()


def _join(job: Job, parts: dict[str, StageOutput], folder: Path) -> StageResult:
    return StageResult()


@flow(persist_result=False)
def _in_flow(job: Job, runner: str) -> float:
    """Seconds from the first part to the joined stage, as flows/chain_run.py builds one."""
    with parts_builder(runner, job.environment) as build_parts:
        build_stage(tiny_job(job.environment.store / "warm", 2, job.environment.device), run_step, build_parts)
        started = time.perf_counter()
        build_stage(job, run_step, build_parts)
        return time.perf_counter() - started


def in_loop(job: Job) -> float:
    """Seconds of the loop without Prefect."""
    started = time.perf_counter()
    build_stage(job)
    return time.perf_counter() - started


def measure(parts: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by way."""
    with ExitStack() as stack:
        stack.enter_context(prefect_test_harness(server_startup_timeout=120))
        workers = local_cluster(RunEnvironment(store=Path()), security=None, resources={"GPU": 1})
        cluster = stack.enter_context(workers)
        address = stack.enter_context(Client(cluster, set_as_default=False)).scheduler.address
        ways: dict[str, Callable[[Job], float]] = {
            "plain loop": in_loop,
            "sequential": lambda job: _in_flow(job, "sequential"),
            "dask": lambda job: _in_flow(job, f"dask:{address}"),
            GROUPED: lambda job: _in_flow(job, f"dask:{address}"),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, build in ways.items():
                with tempfile.TemporaryDirectory() as store:
                    seconds[way].append(build(tiny_job(Path(store), parts, "cuda" if way == GROUPED else "cpu")))
    return seconds


def report(seconds: dict[str, list[float]], parts: int) -> dict[str, Any]:
    """Milliseconds per part, what each runner adds to the plain loop, and its share of shards of several sizes."""
    median = {way: statistics.median(rounds) / parts for way, rounds in seconds.items()}
    base = median["plain loop"]
    ways = {
        way: {
            "milliseconds_per_part": 1000 * value,
            "added": 1000 * (value - base),
            "ratio": value / base,
            "rounds": [1000 * total / parts for total in seconds[way]],
        }
        for way, value in median.items()
    }
    busy = {
        "sequential": 1,
        "dask": os.cpu_count() or 1,
        GROUPED: os.cpu_count() or 1,
    }  # workers: what a part costs one of them
    shares = {
        way: {
            work: {str(size): count * (median[way] - base) / (mean_shard(size) * image) for size in SHARDS}
            for work, image in SECONDS_PER_IMAGE.items()
        }
        for way, count in busy.items()
    }
    return {"format": "excel-overhead/1", "parts": parts, "images": IMAGES, "ways": ways, "share_of_a_shard": shares}


def mean_shard(size: int) -> float:
    """Images per shard at VOC's size: the number of shards is the least power of two with at most `size` per shard on
    average."""
    count = 1
    while count * size < IMAGES:
        count *= 2
    return IMAGES / count


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{'way':<26} {'ms per part':>11} {'added':>8} {'ratio':>7}")
    for way, cost in result["ways"].items():
        print(f"{way:<26} {cost['milliseconds_per_part']:>11.1f} {cost['added']:>8.1f} {cost['ratio']:>7.2f}")
    print(f"\n{'overhead in % of a shard, by shards.images':<62}" + "".join(f"{size:>8}" for size in SHARDS))
    for way, works in result["share_of_a_shard"].items():
        for work, shares in works.items():
            print(f"{way + ': ' + work:<62}" + "".join(f"{100 * shares[str(size)]:>8.2f}" for size in SHARDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = report(measure(arguments.parts, arguments.rounds), arguments.parts)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
