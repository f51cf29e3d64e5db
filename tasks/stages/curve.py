"""Stage `curve`: opens masks. Scores the segmenters that `train.keep_every` kept, and the trained one, on the validation
splits after training, one part per shard → curve.json and the chart.

curve.json (excel-curve/1): `protocol`, and `rows` of split, iteration, mIoU of `pseudo_labels` and of `segmentation`, and
beside them what was `published`, where something was; `skipped` says what could not be scored and why.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from artifacts.charts import draw_curve
from excel_core.background_pool import read_ahead
from excel_core.config import RunSpec
from excel_core.errors import SettingError
from excel_core.evaluation.curve import KINDS, curve_protocol, curve_refine_spec, labels_by_iteration, score_iterations
from excel_core.evaluation.metrics import confusion_matrix, pixel_counts
from excel_core.files import write_json
from excel_core.models.checkpoints import load_segmenter
from excel_core.paper.published import CURVE
from excel_core.stores import read_counts, write_counts
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.progress import track
from tasks.engine.stage import Dependency, Job, Part, RunEnvironment
from tasks.inputs.images import ImageRecord, in_shard
from tasks.inputs.masks import mask_reader_of, masked_images, masked_shards, missing_masks
from tasks.inputs.models import architecture, classes_of, load_cam_model, model_key
from tasks.stages.cams import ShardResult
from tasks.stages.train_resume import kept_segmenters

__all__ = ["CurveResult", "curve_parts", "join_curve", "own_training", "score_kept_segmenters", "settings"]


class CurveResult(StageResult):
    """mIoU of the trained segmenter by split and kind of label map, four decimals."""

    miou: dict[str, dict[str, float]]


def own_training(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """Reads nothing more. SettingError for a checkpoint, of which nobody knows after how many iterations it was kept."""
    if run.train.from_checkpoint is not None:
        raise SettingError("curve: train.from_checkpoint trains nothing, so there is nothing on the way; leave one of them out")
    return {}


def curve_parts(job: Job) -> list[Part]:
    """A part depends on its images and masks, the texts, and the segmenters that were kept."""
    key = {"spec": settings(job.run), "model": model_key(job), "train": job.inputs["train"].content}
    return masked_shards(job, key, job.run.curve.max_images)


def score_kept_segmenters(job: Job, part: Part, folder: Path) -> ShardResult:
    """Count pixels by iteration, kind of label map, truth and prediction."""
    split = part.images.split
    cam_model, masks, classes = load_cam_model(job), mask_reader_of(job, split), len(classes_of(job)) + 1
    shape, device = architecture(job, cam_model), cam_model.clip.device
    files = kept_segmenters(job.folder("train"), job.run.train.iterations)
    segmenters = {iteration: load_segmenter(path, shape).to(device) for iteration, path in files.items()}
    images = in_shard(part.images, _scored_images(job, split))
    totals = {(iteration, kind): np.zeros((classes, classes), np.int64) for iteration in segmenters for kind in KINDS}
    for image, pixels in track(read_ahead(images, ImageRecord.read)):
        mask = masks.read(image.id, image.height, image.width)
        labels_of = labels_by_iteration(cam_model, segmenters, pixels, image.classes, curve_refine_spec(job.run))
        for iteration, labels in labels_of.items():
            for kind in KINDS:
                totals[iteration, kind] += confusion_matrix(mask, getattr(labels, kind), classes)
    counts = [pixel_counts(total).assign(iteration=iteration, kind=kind) for (iteration, kind), total in totals.items()]
    write_counts(folder / "counts.parquet", pd.concat(counts, ignore_index=True))
    return ShardResult(images=len(images))


def join_curve(job: Job, parts: dict[str, StageOutput], folder: Path) -> CurveResult:
    """Add up the parts' counts, score every iteration, and draw the chart."""
    names = ("background", *classes_of(job))
    split_of = {part.name: part.images.split for part in curve_parts(job)}
    rows, skipped = [], dict[str, str]()
    for split in job.run.dataset.val_splits:
        skipped |= missing_masks(job, split)
        tables = [read_counts(part.folder / "counts.parquet") for name, part in parts.items() if split_of[name] == split]
        if tables:
            rows += _rows(job.run, split, pd.concat(tables), names)
    images = {split: len(_scored_images(job, split)) for split in job.run.dataset.val_splits}
    curve = {"format": "excel-curve/1", "protocol": curve_protocol(job.run, images), "rows": rows, "skipped": skipped}
    write_json(folder / "curve.json", curve)
    draw_curve(folder / "curve.png", curve)
    last_iteration = max((row["iteration"] for row in rows), default=0)
    at_end = [row for row in rows if row["iteration"] == last_iteration]
    return CurveResult(miou={row["split"]: {kind: round(row[kind], 4) for kind in KINDS} for row in at_end})


def _scored_images(job: Job, split: str) -> list[ImageRecord]:
    return masked_images(job, split)[: job.run.curve.max_images]


def _rows(run: RunSpec, split: str, counts: pd.DataFrame, names: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for row in score_iterations(counts, names):
        point = CURVE.get(row["iteration"]) if _is_published(run, split) else None
        rows.append({"split": split} | row | {"published": point._asdict() if point else None})
    return rows


def _is_published(run: RunSpec, split: str) -> bool:
    """Whether the published log is about the same data, length and supervision."""
    same_data = run.preset == "voc" and split == "val" and run.dataset.max_images is None
    return same_data and run.train.iterations == max(CURVE) and run.train.supervision == "labels"


def settings(run: RunSpec) -> dict[str, Any]:
    """How labels are made and scored on the way, and what the protocol says of it."""
    return {
        "curve": run.curve.model_dump(mode="json"),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size"}),
        "refine": curve_refine_spec(run).model_dump(mode="json"),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "published": {split: _is_published(run, split) for split in run.dataset.val_splits},
        "names": [run.method, run.train.iterations, run.train.supervision],
    }
