"""A store of made-up photos without pixels: a manifest of any length, and outputs of `cams` of a few bytes each."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from excel_core.checked_files import write_checked_json
from excel_core.config.presets import preset, with_settings
from tasks.engine.executor import Step, build_stage, part_steps
from tasks.engine.fingerprint import digest_of, file_digest
from tasks.engine.output import MARKER, Marker, Origin, StageOutput
from tasks.engine.stage import Job, RunEnvironment
from tasks.history.run_record import start_record
from tasks.pipeline import pipeline

__all__ = ["cams_job", "lay_out", "make_up_cams", "run_and_environment"]

VAL_IMAGES = 1000
BLOCK = 1_000_000  # rows that are made up at once
SETTINGS = ["clip.model=excel-tiny", "dataset.train_split=train", "dataset.seed_splits=[train]", "dataset.val_splits=[val]"]
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
    """The run that is measured, and its store and data in `folder`."""
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
