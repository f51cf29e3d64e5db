"""Ten million photos without pixels: what a run decides before it computes, and what its history costs, against their number.

    python -m bench.scale_far [--images 10000,100000,1000000,10000000] [--json FILE]

A manifest of made-up photos is the output of stage `dataset`; texts and knowledge are real ones, of the tiny CLIP. Measured in
processes of their own, with their peaks of memory:

    plan      `excel plan` of the run where nothing is computed yet: the manifest, shards, and the keys of all their parts
    worker    a worker's way to the images of a shard: the first, and the mean of others
    planned   `plan` again where all CAMs are there: the keys of `refine`
    runs      the list of runs, one of which was killed over all shards
    gc        what can go of a store with the parts of two runs
    listing   the digest of a data folder's names, sizes and times: real files, empty, of at most MAX_FILES
    markers   reading the marker of an output of as many label maps, at most MAX_FILES
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

from bench.made_up_store import cams_job, lay_out, make_up_cams, run_and_environment  # isort: skip
from excel_core.checked_files import write_checked_json
from tasks.engine.executor import part_steps
from tasks.engine.fingerprint import folders_fingerprint
from tasks.engine.output import MARKER, Marker, Origin, read_marker
from tasks.engine.stage import Job, Shard
from tasks.history.garbage import find_garbage
from tasks.history.plan import plan_run
from tasks.history.run_record import read_records
from tasks.inputs.images import cam_images, in_shard
from tasks.pipeline import pipeline

MEASURES = ("plan", "worker", "planned", "runs", "gc")
OTHER_SHARDS = 20  # of a worker, after its first
MAX_FILES = 1_000_000


def measure_plan(folder: Path) -> dict[str, Any]:
    run, environment = run_and_environment(folder)
    clock = Clock()
    stages = plan_run(pipeline(run, environment, "report"))
    return {**clock.read(), "parts": {s.name: s.parts for s in stages if s.parts}}


def measure_worker(folder: Path) -> dict[str, Any]:
    job = cams_job(folder)
    steps = part_steps(job)
    shards = [step.part.images for step in steps if step.part and step.part.images.split == "train"][: OTHER_SHARDS + 1]
    clear = sys.modules["tasks.inputs.images"]._images.cache_clear
    clear()
    first, *others = [_seconds_of_shard(job, shard) for shard in shards]
    return {**first, "others": sum(other["cpu_seconds"] for other in others) / max(1, len(others))}


def _seconds_of_shard(job: Job, shard: Shard) -> dict[str, float]:
    clock = Clock()
    if not [image.id for image in in_shard(shard, cam_images(job, shard.split))]:
        raise AssertionError("no images")
    return clock.read()


def measure_runs(folder: Path) -> dict[str, Any]:
    clock = Clock()
    records = read_records(folder / "store")
    return {**clock.read(), "runs": len(records)}


def measure_gc(folder: Path) -> dict[str, Any]:
    clock = Clock()
    garbage = find_garbage(folder / "store")
    return {**clock.read(), "outputs": len(garbage)}


def measure_listing(files: int) -> dict[str, Any]:
    """Of empty files in one folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "JPEGImages").mkdir()
        for number in range(files):
            os.close(os.open(folder / "JPEGImages" / f"photo_{number:08}.jpg", os.O_CREAT | os.O_WRONLY))
        before = peak_bytes()
        clock = Clock()
        folders_fingerprint(folder, "JPEGImages")
        return {"images": files, **clock.read(), "peak_bytes": peak_bytes(), "before_bytes": before}


def measure_marker(files: int) -> dict[str, Any]:
    """Reading the marker of an output of that many label maps."""
    folder = Path(tempfile.mkdtemp(prefix="excel-scale-")) / "refine" / ("0" * 32)
    folder.mkdir(parents=True)
    listed = {
        f"SegmentationClassPseudo/photo_{i:08}.png": (5000, 1_700_000_000_000_000_000 + i, f"{i:064x}") for i in range(files)
    }
    origin = Origin(key_parts={}, inputs={}, parts={}, items=0, kind="", finished="", host="", pid=1)
    output = {"stage": "refine", "key": folder.name, "content": "", "result": {}, "seconds": 1.0, "bytes": 5000 * files}
    write_checked_json(folder / MARKER, Marker(output=output, files=listed, origin=origin).model_dump(mode="json"))
    size = (folder / MARKER).stat().st_size
    result = in_process("--measure", "reading", "--folder", str(folder))
    shutil.rmtree(folder.parents[1])
    return {"files": files, "bytes": size, **result}


def measure_reading(folder: Path) -> dict[str, Any]:
    before, clock = peak_bytes(), Clock()
    read_marker(folder)
    return {**clock.read(), "before_bytes": before}


class Clock:
    """Seconds of the wall, and of this process' own work, since it was made: other processes may take the machine's cores."""

    def __init__(self) -> None:
        self.wall, self.work = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.work}


def peak_bytes() -> int:
    """The most resident memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_process(*arguments: str) -> dict[str, Any]:
    """What this module prints last with these arguments, in a process of its own."""
    command = [sys.executable, "-m", "bench.scale_far", *arguments]
    env = os.environ | {"EXCEL_FSYNC": "0"}
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8", env=env)  # noqa: S603  this very module
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


def measured(images: int, result: dict[str, Any]) -> Iterator[None]:
    """Fill `result` with all measures at one number of images; yields after each."""
    folder = Path(tempfile.mkdtemp(prefix="excel-scale-"))
    result["images"] = images
    try:
        in_process("--make", "store", "--folder", str(folder), "--images", str(images))
        for name in MEASURES:
            if name == "planned":
                in_process("--make", "cams", "--folder", str(folder), "--images", str(images))
            result[name] = in_process("--measure", name, "--folder", str(folder))
            print(images, name, json.dumps(result[name]), flush=True)
            yield
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="10000,100000,1000000,10000000")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--make", choices=("store", "cams"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.images.split(",")]
    if arguments.make:
        (lay_out if arguments.make == "store" else make_up_cams)(arguments.folder, sizes[0])
        print("{}")
    elif arguments.measure == "listing":
        print(json.dumps(measure_listing(sizes[0])))
    elif arguments.measure:
        measures = {"plan": measure_plan, "planned": measure_plan, "worker": measure_worker, "runs": measure_runs}
        result = (measures | {"gc": measure_gc, "reading": measure_reading})[arguments.measure](arguments.folder)
        print(json.dumps(result | {"peak_bytes": peak_bytes()}))
    else:
        measure_all(sizes, arguments.json)


def measure_all(sizes: list[int], file: Path | None) -> None:
    """Every measure at every size, in the file after each: the largest take long."""
    result: dict[str, Any] = {"format": "excel-scale-far/1", "runs": [], "listing": [], "markers": []}

    def save() -> None:
        if file is not None:
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    for size in sizes:
        if size <= MAX_FILES:
            result["listing"].append(in_process("--measure", "listing", "--images", str(size)))
            result["markers"].append(measure_marker(size))
        result["runs"].append({})
        for _ in measured(size, result["runs"][-1]):
            save()
    save()


if __name__ == "__main__":
    main()
