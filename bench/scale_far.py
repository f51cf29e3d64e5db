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

import numpy as np  # isort: skip
import pyarrow as pa
import pyarrow.parquet as pq

from excel_core.checked_files import write_checked_json
from excel_core.config.presets import preset, with_settings
from tasks.engine.executor import Step, build_stage, part_steps
from tasks.engine.fingerprint import digest_of, file_digest, folders_fingerprint
from tasks.engine.output import MARKER, Marker, Origin, StageOutput, read_marker
from tasks.engine.stage import Job, RunEnvironment, Shard
from tasks.history.garbage import find_garbage
from tasks.history.plan import plan_run
from tasks.history.run_record import read_records, start_record
from tasks.inputs.images import cam_images, in_shard
from tasks.pipeline import pipeline

SETTINGS = ["clip.model=excel-tiny", "dataset.train_split=train", "dataset.seed_splits=[train]", "dataset.val_splits=[val]"]
MEASURES = ("plan", "worker", "planned", "runs", "gc")
BLOCK = 1_000_000  # rows that are made up at once
VAL_IMAGES = 1000
OTHER_SHARDS = 20  # of a worker, after its first
MAX_FILES = 1_000_000
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def made_up_rows(first: int, count: int, split: str) -> pa.Table:
    """Rows of a manifest from number `first` on: one to three classes, digests of random bytes."""
    random = np.random.default_rng(first)
    ids = [f"photo_{number:08}" for number in range(first, first + count)]
    digits = random.bytes(32 * count).hex()
    classes = np.sort(random.integers(0, len(CLASSES), (count, 3)), axis=1)
    labels = [[CLASSES[c] for c in dict.fromkeys(row)] for row in classes.tolist()]
    return pa.table(
        {
            "id": ids,
            "split": [split] * count,
            "image": [f"JPEGImages/{id}.jpg" for id in ids],
            "height": random.integers(200, 500, count, dtype=np.int32),
            "width": random.integers(200, 500, count, dtype=np.int32),
            "labels": pa.array(labels, pa.list_(pa.string())),
            "error": [""] * count,
            "digest": [digits[64 * i : 64 * i + 64] for i in range(count)],
        }
    )


def write_made_up_manifest(path: Path, images: int) -> None:
    """`images` rows of split train, and VAL_IMAGES of split val."""
    last = made_up_rows(images, VAL_IMAGES, "val")
    with pq.ParquetWriter(path, last.schema) as writer:
        for first in range(0, images, BLOCK):
            writer.write_table(made_up_rows(first, min(BLOCK, images - first), "train"))
        writer.write_table(last)


def run_and_environment(folder: Path) -> tuple[Any, RunEnvironment]:
    return with_settings(preset("voc"), SETTINGS), RunEnvironment(store=folder / "store", data=folder / "data")


def made_up_output(step: Step, files: dict[str, bytes], result: dict[str, Any]) -> StageOutput:
    """The step's output as if it had been built of these files."""
    return write_made_up(step.folder, step, files, result)


def write_made_up(folder: Path, step: Step, files: dict[str, bytes], result: dict[str, Any]) -> StageOutput:
    """An output in `folder`, as the step would make it, with its marker; files of that name that are there already stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    listed = {path.name: (path.stat().st_size, path.stat().st_mtime_ns, file_digest(path)) for path in folder.iterdir()}
    parts = {name: output.content for name, output in step.parts.items()}
    content, size = digest_of([digest for _, _, digest in listed.values()]), sum(size for size, _, _ in listed.values())
    output = {"stage": step.kind, "key": folder.name, "content": content, "bytes": size}
    output |= {"result": result, "seconds": 1.0, "parts": parts}
    keys = {name: output.key for name, output in step.parts.items()}
    written = {"finished": "2026-01-01T00:00:00+00:00", "host": "", "pid": 1, "items": step.items, "kind": ""}
    origin = Origin(key_parts=step.key_parts, inputs={}, parts=keys, **written)
    write_checked_json(folder / MARKER, Marker(output=output, files=listed, origin=origin).model_dump(mode="json"))
    return StageOutput.model_validate(output | {"place": folder})


def lay_out(folder: Path, images: int) -> None:
    """A store whose dataset has that many photos, with texts and knowledge."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (folder / "data" / name).mkdir(parents=True)
    run, environment = run_and_environment(folder)

    def build(job: Job) -> StageOutput | None:
        if job.stage.name != "dataset":
            return build_stage(job) if job.stage.name in ("describe", "knowledge") else None
        step = Step(job)
        step.folder.mkdir(parents=True)
        write_made_up_manifest(step.folder / "manifest.parquet", images)
        result = {"images": {"train": images, "val": VAL_IMAGES}, "left_out": {}, "absent": {}, "bad": {}}
        return made_up_output(step, {}, result)

    pipeline(run, environment, "knowledge").follow(build)
    pipeline(run, environment, "dataset").follow(build)


def cams_job(folder: Path) -> Job:
    """The job of stage `cams`."""
    run, environment = run_and_environment(folder)
    outputs: list[Job] = []

    def look(job: Job) -> StageOutput | None:
        outputs.append(job)
        return build_stage(job) if job.stage.name != "cams" else None

    pipeline(run, environment, "cams").follow(look)
    return outputs[-1]


def make_up_cams(folder: Path, images: int) -> None:
    """Outputs of every part of `cams` and of the whole, each a file of a few bytes; as many parts that no run needs; and the
    records of a run that used them and of one that was killed."""
    job = cams_job(folder)
    parts = {}
    for step in part_steps(job):
        name = step.part.name if step.part else ""
        files, result = {"part.txt": name.encode()}, {"images": step.items}
        parts[name] = made_up_output(step, files, result)
        write_made_up(step.folder.with_name(digest_of(name)[:32]), step, files, result)
    result = {"images": images, "bytes_per_image": 1.0, "attention_bytes_per_image": 1.0}
    whole = made_up_output(Step(job, parts=parts), {"cams.txt": b"all"}, result)
    used = start_record("excel", job.run, job.environment)
    used.use(whole, cached=False)
    used.end("complete")
    killed = start_record("excel", job.run, job.environment)
    killed.begin(f"{output.stage}/{output.key}" for output in parts.values())
    killed.end("crashed")


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
