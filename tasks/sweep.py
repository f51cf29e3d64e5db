"""Stages `sweep` and `sweep_lvc`: raw CAMs of the validation splits against the truth at every threshold at once, a shard
a part; with static calibration, or with the learnt relation. Also the zero-shot presence of each class."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from excel_core.cams.seeds import learnt_cams
from excel_core.config import RunSpec
from excel_core.evaluation.ablation import level_counts, presence_scores
from excel_core.stores import read_counts, write_counts
from tasks.engine.background_pool import read_ahead
from tasks.engine.progress import track
from tasks.engine.stage import Part, Stage, Work, always
from tasks.inputs.cam_model import classes_of, load_cam_model, load_knowledge, model_key
from tasks.inputs.masks import mask_reader_of, masked_parts, masked_rows
from tasks.inputs.records import Record, batches, shard_rows
from tasks.train import trained_segmenter

__all__ = ["LEARNT", "STAGE"]


def sweep_parts(work: Work) -> list[Part]:
    """A part depends on its images and masks, the texts and the CAM spec, and on the segmenter where it is used."""
    key = {"spec": _spec(work.run), "sight": model_key(work)}
    if "train" in work.inputs:
        key["train"] = work.inputs["train"].content
    return masked_parts(work, key)


@torch.inference_mode()
def build_sweep_part(work: Work) -> dict[str, Any]:
    """Count pixels by truth, strongest class and CAM level; one forward pass a batch."""
    cam_model, split = load_cam_model(work), work.this_part.about["split"]
    truth = mask_reader_of(work, split)
    segmenter = trained_segmenter(work, cam_model) if "train" in work.inputs else None
    templates = load_knowledge(work).knowledge.templates.to(cam_model.text)
    rows = shard_rows(work, masked_rows(work, split))
    levels, presence = [], []
    for batch in track(batches(read_ahead(rows, Record.read), work.run.cams.batch_size), len):
        images = cam_model.prepare([image for _, image in batch])
        encoded = cam_model.encode(images, whole=False)
        presence += presence_scores(cam_model.clip, encoded.path, templates).cpu().tolist()
        if segmenter is None:
            cams = cam_model.cams(encoded).float()
        else:
            cams = learnt_cams(cam_model, segmenter, images, work.run.refine, work.run.dynamic.mirror).cams
        for (row, _), cam in zip(batch, cams, strict=True):
            mask = truth.read(row.id, row.height, row.width)
            levels.append(level_counts(cam, row.classes, mask).assign(image=row.id))
    write_counts(work.folder / "levels.parquet", pd.concat(levels, ignore_index=True))
    scores = pd.DataFrame(presence, columns=list(classes_of(work)))
    scores.insert(0, "image", [row.id for row in rows])
    write_counts(work.folder / "presence.parquet", scores)
    return {"images": len(rows)}


def join_sweep(work: Work) -> dict[str, Any]:
    """All shards' counts with their splits."""
    about = {part.name: part.about["split"] for part in sweep_parts(work)}
    for name in ("levels.parquet", "presence.parquet"):
        tables = [read_counts(part.folder / name).assign(split=about[key]) for key, part in work.parts.items()]
        write_counts(work.folder / name, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame())
    return {"images": sum(part.summary["images"] for part in work.parts.values()), "classes": len(classes_of(work))}


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.cams.model_dump(mode="json")


def _stage(name: str, inputs: tuple[str, ...], takes: Callable[[Work], dict[str, Any]]) -> Stage:
    return Stage(
        name,
        inputs,
        _spec,
        join_sweep,
        parts=sweep_parts,
        build_part=build_sweep_part,
        takes=takes,
        reads_data=True,
        sees_masks=always,
        on_device=True,
    )


STAGE = _stage("sweep", ("dataset", "knowledge"), lambda work: {})
LEARNT = _stage("sweep_lvc", ("dataset", "knowledge", "train"), lambda work: {})
