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
from excel_core.cams.pseudo_labels import step_names
from excel_core.config import RefineSpec, RunSpec
from excel_core.evaluation.curve import labels_by_iteration
from excel_core.evaluation.metrics import confusion_matrix, confusion_of_counts, pixel_counts, scores
from excel_core.evaluation.protocols import FULLY_SUPERVISED, refinement_words
from excel_core.files import write_json
from excel_core.models.checkpoints import load_segmenter
from excel_core.paper.published import CURVE
from excel_core.stores import read_counts, write_counts
from tasks.engine.background_pool import read_ahead
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import ImageRecord, in_shard
from tasks.inputs.masks import mask_reader_of, masked_images, masked_shards, missing_masks
from tasks.inputs.models import architecture, classes_of, load_cam_model, model_key
from tasks.stages.cams import ShardResult
from tasks.stages.train import kept_segmenters

__all__ = ["CurveResult", "curve_parts", "join_curve", "score_kept_segmenters", "settings"]

KINDS = ("pseudo_labels", "segmentation")


class CurveResult(StageResult):
    """mIoU of the trained segmenter by split and kind of label map, four decimals."""

    miou: dict[str, dict[str, float]]


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
        labels_of = labels_by_iteration(cam_model, segmenters, pixels, image.classes, _refine(job.run))
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
            rows += [{"split": split} | row for row in _scored(pd.concat(tables), names, _is_published(job.run, split))]
    curve = {"format": "excel-curve/1", "protocol": _protocol(job), "rows": rows, "skipped": skipped}
    write_json(folder / "curve.json", curve)
    draw_curve(folder / "curve.png", curve)
    last = max((row["iteration"] for row in rows), default=0)
    at_end = [row for row in rows if row["iteration"] == last]
    return CurveResult(miou={row["split"]: {kind: round(row[kind], 4) for kind in KINDS} for row in at_end})


def _scored_images(job: Job, split: str) -> list[ImageRecord]:
    return masked_images(job, split)[: job.run.curve.max_images]


def _refine(run: RunSpec) -> RefineSpec:
    """The run's refinement at the log's affinity threshold, without CRF."""
    affinity = run.refine.affinity.model_copy(update={"threshold": run.curve.threshold})
    return run.refine.model_copy(update={"affinity": affinity, "crf": run.refine.crf.model_copy(update={"enabled": False})})


def _scored(counts: pd.DataFrame, names: tuple[str, ...], published: bool) -> list[dict[str, Any]]:
    rows = []
    for iteration in sorted(counts["iteration"].unique().tolist()):
        row: dict[str, Any] = {"iteration": iteration}
        for kind in KINDS:
            table = counts[(counts["iteration"] == iteration) & (counts["kind"] == kind)]
            row[kind] = scores(confusion_of_counts(table, len(names)), names).miou
        point = CURVE.get(iteration) if published else None
        rows.append(row | {"published": point._asdict() if point else None})
    return rows


def _is_published(run: RunSpec, split: str) -> bool:
    """Whether the published log is about the same data, length and supervision."""
    same_data = run.preset == "voc" and split == "val" and run.dataset.max_images is None
    return same_data and run.train.iterations == max(CURVE) and run.train.supervision == "labels"


def _protocol(job: Job) -> dict[str, Any]:
    run, refine = job.run, _refine(job.run)
    refined = refinement_words(run.model_copy(update={"refine": refine}), step_names(refine)[-1])
    relation = f"; R̂ in the affinity, threshold {run.curve.threshold}" if refine.affinity.enabled else ""
    return {
        "what": "segmenters kept during training",
        "method": run.method,
        "pseudo labels": f"static CAMs of image-level ground truth, {refined}{relation}",
        "segmentation": f"single scale {run.cams.image_size}, no flip, no CRF",
        "images": {split: len(_scored_images(job, split)) for split in run.dataset.val_splits},
    } | ({"supervision": FULLY_SUPERVISED} if run.train.supervision == "masks" else {})


def settings(run: RunSpec) -> dict[str, Any]:
    """How labels are made and scored on the way, and what the protocol says of it."""
    return {
        "curve": run.curve.model_dump(mode="json"),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size"}),
        "refine": _refine(run).model_dump(mode="json"),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "published": {split: _is_published(run, split) for split in run.dataset.val_splits},
        "names": [run.method, run.train.iterations, run.train.supervision],
    }
