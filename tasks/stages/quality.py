"""Stage `quality`: what a person should look at first, told without any truth → quality.csv, doubtful.csv.

quality.csv     every image with pseudo labels, worst first: its score, and how well each pair of steps agrees
doubtful.csv    image-level labels that CLIP doubts: given but hardly seen, then seen but not given

A part compares the label maps of its shard; joining them reads the presence scores of all images, a shard at a time.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.config import RunSpec
from excel_core.datasets.palette import load_labels_png
from excel_core.evaluation.label_doubts import LabelDoubt, PresenceReference, label_table, most_doubtful_first
from excel_core.evaluation.label_quality import agreements, quality_score
from excel_core.safe_csv import write_csv
from excel_core.stores import read_counts, write_counts
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.progress import track
from tasks.engine.stage import Dependency, Job, Part, RunEnvironment
from tasks.inputs.images import cam_images, cam_shards, in_shard
from tasks.inputs.models import classes_of
from tasks.stages.cams import ShardResult
from tasks.stages.refine import LabelsResult, step_folder

__all__ = [
    "DOUBTS_CSV", "QUALITY_CSV", "QualityResult", "input_key", "join_quality", "learnt_labels", "quality_of_run",
    "quality_parts", "quality_shard", "settings",
]  # fmt: skip

QUALITY_CSV, DOUBTS_CSV = "quality.csv", "doubtful.csv"
DOUBT_COLUMNS = ("image", "class", "label", "score", "rank")
MAX_REFERENCE = 20_000  # images whose presence scores the others' are read against


class QualityResult(StageResult):
    """Images with a score, their mean score, and how many labels are doubtful: given, and missing."""

    images: int
    mean: float
    doubtful_given: int
    doubtful_missing: int


def quality_of_run(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """The ranking, where it is asked for."""
    return {"quality": Dependency("quality", run)} if run.quality.enabled else {}


def learnt_labels(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """Label maps of learnt CAMs, where the run trains a segmenter."""
    return {"dynamic": Dependency("dynamic", run)} if run.train.enabled else {}


def quality_parts(job: Job) -> list[Part]:
    """A part depends on the label maps of the same shard."""
    refine, classes = job.inputs["refine"].parts, len(classes_of(job))
    learnt = job.inputs["dynamic"].parts if "dynamic" in job.inputs else {}
    return cam_shards(job, lambda shard, images: {"labels": refine[shard], "learnt": learnt.get(shard), "classes": classes})


def quality_shard(job: Job, part: Part, folder: Path) -> ShardResult:
    """Score each image by how well its label maps agree → quality.parquet."""
    images = in_shard(part.images, cam_images(job, part.images.split))
    labels, rows = len(classes_of(job)) + 1, []
    for image in track(images):
        static = _steps(job.inputs["refine"], image.id)
        learnt = _steps(job.inputs["dynamic"], image.id) if "dynamic" in job.inputs else {}
        agreement = agreements(static, learnt, labels)
        rows.append({"image": image.id, "score": quality_score(agreement)} | agreement)
    write_counts(folder / "quality.parquet", pd.DataFrame(rows))
    return ShardResult(images=len(images))


def _steps(output: StageOutput, image: str) -> dict[str, Any]:
    """Label maps by step, but for those that leave pixels without a label."""
    steps = output.result_as(LabelsResult).steps
    files = {step: output.folder / step_folder(step, steps) / f"{image}.png" for step in steps if step != "confident"}
    return {step: load_labels_png(file) for step, file in files.items()}


def join_quality(job: Job, parts: dict[str, StageOutput], folder: Path) -> QualityResult:
    """All scores, worst first, and the labels that CLIP doubts."""
    tables = [read_counts(part.folder / "quality.parquet") for part in parts.values()]
    scores = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"image": [], "score": []})
    scores = scores.sort_values(["score", "image"], ignore_index=True)
    write_csv(folder / QUALITY_CSV, scores.columns.tolist(), scores.itertuples(index=False))
    doubts = _doubts(job)
    names = classes_of(job)
    rows = [(d.image, names[d.class_index], "given" if d.given else "missing", d.score, d.rank) for d in doubts]
    write_csv(folder / DOUBTS_CSV, DOUBT_COLUMNS, rows)
    given = sum(doubt.given for doubt in doubts)
    mean = float(scores["score"].mean()) if len(scores) else 1.0
    return QualityResult(images=len(scores), mean=round(mean, 4), doubtful_given=given, doubtful_missing=len(rows) - given)


def _doubts(job: Job) -> list[LabelDoubt]:
    """Of all images, against a sample of them that is spread evenly."""
    parts = quality_parts(job)
    every = max(1, -(-sum(part.items for part in parts) // MAX_REFERENCE))
    sample = [_presence(job, part, every) for part in parts]
    if not sample:
        return []
    scores, given = (np.concatenate([getattr(presence, name) for presence in sample]) for name in ("scores", "given"))
    reference, spec = PresenceReference.of(scores, given), job.run.quality
    doubts: list[LabelDoubt] = []
    for part in parts:
        presence = _presence(job, part)
        doubts += reference.doubts(presence.ids, presence.scores, presence.given, spec.seen, spec.unseen)
    return most_doubtful_first(doubts)


class _Presence(NamedTuple):
    """Of I images: ids, CLIP's scores (I, C), and which labels are given (I, C)."""

    ids: list[str]
    scores: NDArray[np.float32]
    given: NDArray[np.bool_]


def _presence(job: Job, part: Part, every: int = 1) -> _Presence:
    """Every so many images of a shard."""
    classes = {image.id: image.classes for image in in_shard(part.images, cam_images(job, part.images.split))}
    table = read_counts(job.folder("cams") / "presence" / f"{part.name}.parquet").set_index("image").iloc[::every]
    ids = [str(image) for image in table.index]
    given = label_table([classes[image] for image in ids], table.shape[1])
    return _Presence(ids, table.to_numpy(dtype=np.float32), given)


def input_key(job: Job) -> dict[str, Any]:
    """Beside the parts: the presence scores, and the class names."""
    return {"cams": job.inputs["cams"].content, "classes": list(classes_of(job))}


def settings(run: RunSpec) -> dict[str, Any]:
    """Which labels are doubtful."""
    return run.quality.model_dump(mode="json", include={"seen", "unseen"})
