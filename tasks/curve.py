"""Stage `curve`: opens masks. Scores the segmenters that `train.keep_every` kept, and the trained one, on the validation
splits after training, a shard a part → curve.json and the chart.

curve.json (excel-curve/1): `protocol`, and `rows` of split, iteration, mIoU of `pseudo_labels` and of `segmentation`, and
beside them what was `published`, where something was; `skipped` says what could not be scored and why.
"""

from typing import Any

import numpy as np
import pandas as pd

from artifacts.curve_chart import draw_curve
from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import step_names
from excel_core.config import RefineSpec, RunSpec
from excel_core.errors import SettingError
from excel_core.evaluation.curve import labels_on_the_way
from excel_core.evaluation.metrics import confusion_matrix, confusion_of_counts, pixel_counts, scores
from excel_core.evaluation.protocols import FULLY_SUPERVISED, refinement_words
from excel_core.files import write_json
from excel_core.models.checkpoints import load_segmenter
from excel_core.models.segmenter import Segmenter
from excel_core.paper.published import CURVE
from excel_core.stores import read_counts, write_counts
from tasks.engine.background_pool import read_ahead
from tasks.engine.progress import track
from tasks.engine.stage import Dependency, Part, RunEnvironment, Stage, Work, always
from tasks.inputs.cam_model import classes_of, load_cam_model, model_key
from tasks.inputs.masks import mask_reader_of, masked_parts, masked_rows, missing_masks
from tasks.inputs.records import Record, shard_rows
from tasks.train import architecture, kept_segmenters

__all__ = ["STAGE"]

KINDS = ("pseudo_labels", "segmentation")


def curve_parts(work: Work) -> list[Part]:
    """A part depends on its images and masks, the texts, and the segmenters that were kept."""
    key = {"spec": _spec(work.run), "sight": model_key(work), "train": work.inputs["train"].content}
    return masked_parts(work, key, work.run.curve.max_images)


def build_curve_part(work: Work) -> dict[str, Any]:
    """Count pixels by iteration, kind of label map, truth and prediction."""
    split = work.this_part.about["split"]
    cam_model, truth, classes = load_cam_model(work), mask_reader_of(work, split), len(classes_of(work)) + 1
    segmenters = _segmenters(work, cam_model)
    rows = shard_rows(work, _scored_rows(work, split))
    totals = {(iteration, kind): np.zeros((classes, classes), np.int64) for iteration in segmenters for kind in KINDS}
    for row, image in track(read_ahead(rows, Record.read)):
        mask = truth.read(row.id, row.height, row.width)
        for iteration, labels in labels_on_the_way(cam_model, segmenters, image, row.classes, _refine(work.run)).items():
            for kind in KINDS:
                totals[iteration, kind] += confusion_matrix(mask, getattr(labels, kind), classes)
    counts = [pixel_counts(total).assign(iteration=iteration, kind=kind) for (iteration, kind), total in totals.items()]
    write_counts(work.folder / "counts.parquet", pd.concat(counts, ignore_index=True))
    return {"images": len(rows)}


def join_curve(work: Work) -> dict[str, Any]:
    """Add up the parts' counts, score every iteration, and draw the chart."""
    names = ("background", *classes_of(work))
    rows, skipped = [], dict[str, str]()
    for split in work.run.dataset.val_splits:
        skipped |= missing_masks(work, split)
        parts = [part for part in curve_parts(work) if part.about["split"] == split]
        if parts:
            counts = pd.concat([read_counts(work.parts[part.name].folder / "counts.parquet") for part in parts])
            rows += [{"split": split} | row for row in _scored(counts, names, _is_published(work.run, split))]
    curve = {"format": "excel-curve/1", "protocol": _protocol(work), "rows": rows, "skipped": skipped}
    write_json(work.folder / "curve.json", curve)
    draw_curve(work.folder / "curve.png", curve)
    last = max((row["iteration"] for row in rows), default=0)
    return {row["split"]: {kind: round(row[kind], 4) for kind in KINDS} for row in rows if row["iteration"] == last}


def _scored_rows(work: Work, split: str) -> list[Record]:
    return masked_rows(work, split)[: work.run.curve.max_images]


def _segmenters(work: Work, cam_model: CamModel) -> dict[int, Segmenter]:
    shape, device = architecture(work, cam_model), cam_model.clip.device
    files = kept_segmenters(work.input("train"), work.run.train.iterations)
    return {iteration: load_segmenter(path, shape).to(device) for iteration, path in files.items()}


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
    same = run.preset == "voc" and split == "val" and run.dataset.max_images is None
    return same and run.train.iterations == max(CURVE) and run.train.supervision == "labels"


def _protocol(work: Work) -> dict[str, Any]:
    run, refine = work.run, _refine(work.run)
    refined = refinement_words(run.model_copy(update={"refine": refine}), step_names(refine)[-1])
    relation = f"; R̂ in the affinity, threshold {run.curve.threshold}" if refine.affinity.enabled else ""
    images = {split: len(_scored_rows(work, split)) for split in run.dataset.val_splits}
    return {
        "what": "segmenters kept during training",
        "method": run.method,
        "pseudo labels": f"static CAMs of image-level ground truth, {refined}{relation}",
        "segmentation": f"single scale {run.cams.image_size}, no flip, no CRF",
        "images": images,
    } | ({"supervision": FULLY_SUPERVISED} if run.train.supervision == "masks" else {})


def _needs(run: RunSpec, place: RunEnvironment) -> dict[str, Dependency]:
    """Nothing beside `inputs`. SettingError for a checkpoint, of which nobody knows after how many iterations it was kept."""
    if run.train.from_checkpoint is not None:
        raise SettingError("curve: train.from_checkpoint trains nothing, so there is nothing on the way; leave one of them out")
    return {}


def _spec(run: RunSpec) -> dict[str, Any]:
    return {
        "curve": run.curve.model_dump(mode="json"),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size"}),
        "refine": _refine(run).model_dump(mode="json"),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "published": {split: _is_published(run, split) for split in run.dataset.val_splits},
        "names": [run.method, run.train.iterations, run.train.supervision],
    }


STAGE = Stage(
    "curve",
    ("dataset", "knowledge", "train"),
    _spec,
    join_curve,
    parts=curve_parts,
    build_part=build_curve_part,
    needs=_needs,
    takes=lambda work: {},
    reads_data=True,
    sees_masks=always,
    on_device=True,
)
