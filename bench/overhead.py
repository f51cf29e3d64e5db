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

from excel_core.config.presets import preset
from flows.runners import local_cluster, parts_builder
from tasks.engine.build import run_stage
from tasks.engine.prefect_task import work_task
from tasks.engine.stage import Part, RunEnvironment, Stage, Work

IMAGES = 10_582  # VOC's training images with its augmented set
# Seconds an image: the cheapest shards there are (CAMs at 200 images/s on a GPU), and a CPU's.
WORK = {"CAMs, GPU": 1 / 200, "CAMs, CPU (ViT-B/16)": 0.87, "CAMs and refinement, CPU, at least": 1.17}
SHARDS = (64, 128, 256, 512, 1024, 2048)


def tiny(store: Path, parts: int) -> Work:
    """A stage of `parts` parts, each a file of a few bytes."""
    stage = Stage("tiny", (), _spec, _join, parts=partial(_parts, parts), build_part=_build)
    return Work(stage, preset("demo"), RunEnvironment(store=store), {})


def _spec(run: Any) -> dict[str, Any]:
    return {}


def _parts(count: int, work: Work) -> list[Part]:
    return [Part(name=f"part{i}", items=1, key={"number": i}) for i in range(count)]


def _build(work: Work) -> dict[str, Any]:
    (work.folder / "part.txt").write_text(work.this_part.name)
    return {}


def _join(work: Work) -> dict[str, Any]:
    return {"parts": len(work.parts)}


@flow(persist_result=False)
def _built(work: Work, runner: str) -> float:
    """Seconds from the first part to the joined stage, as flows/chain_run.py builds one."""
    with parts_builder(runner, work.place) as build_parts:
        run_stage(tiny(work.place.store / "warm", 2), lambda piece: work_task(piece)(piece), build_parts)
        started = time.perf_counter()
        run_stage(work, lambda piece: work_task(piece)(piece), build_parts)
        return time.perf_counter() - started


def plain(work: Work) -> float:
    """Seconds of the loop without Prefect."""
    started = time.perf_counter()
    run_stage(work)
    return time.perf_counter() - started


def measure(parts: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by way."""
    with ExitStack() as stack:
        stack.enter_context(prefect_test_harness(server_startup_timeout=120))
        cluster = stack.enter_context(local_cluster(RunEnvironment(store=Path())))
        address = stack.enter_context(Client(cluster, set_as_default=False)).scheduler.address
        ways: dict[str, Callable[[Work], float]] = {
            "plain loop": plain,
            "sequential": lambda work: _built(work, "sequential"),
            "dask": lambda work: _built(work, f"dask:{address}"),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, build in ways.items():
                with tempfile.TemporaryDirectory() as store:
                    seconds[way].append(build(tiny(Path(store), parts)))
    return seconds


def report(seconds: dict[str, list[float]], parts: int) -> dict[str, Any]:
    """Milliseconds a part, what each runner adds to the plain loop, and its share of shards of several sizes."""
    median = {way: statistics.median(found) / parts for way, found in seconds.items()}
    base = median["plain loop"]
    ways = {
        way: {
            "milliseconds_a_part": 1000 * value,
            "added": 1000 * (value - base),
            "ratio": value / base,
            "rounds": [1000 * found / parts for found in seconds[way]],
        }
        for way, value in median.items()
    }
    busy = {"sequential": 1, "dask": os.cpu_count() or 1}  # workers: what a part costs one of them
    shares = {
        way: {
            work: {str(size): workers * (median[way] - base) / (mean_shard(size) * image) for size in SHARDS}
            for work, image in WORK.items()
        }
        for way, workers in busy.items()
    }
    return {"format": "excel-overhead/1", "parts": parts, "images": IMAGES, "ways": ways, "share_of_a_shard": shares}


def mean_shard(size: int) -> float:
    """Images a shard at VOC's size: the number of shards is the power of two that leaves at most `size` on average."""
    count = 1
    while count * size < IMAGES:
        count *= 2
    return IMAGES / count


def show(result: dict[str, Any]) -> None:
    """The tables."""
    print(f"{'way':<12} {'ms a part':>10} {'added':>8} {'ratio':>7}")
    for way, found in result["ways"].items():
        print(f"{way:<12} {found['milliseconds_a_part']:>10.1f} {found['added']:>8.1f} {found['ratio']:>7.2f}")
    print(f"\n{'overhead in % of a shard, by shards.images':<48}" + "".join(f"{size:>8}" for size in SHARDS))
    for way, works in result["share_of_a_shard"].items():
        for work, shares in works.items():
            print(f"{way + ': ' + work:<48}" + "".join(f"{100 * shares[str(size)]:>8.2f}" for size in SHARDS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = report(measure(arguments.parts, arguments.rounds), arguments.parts)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
