"""Stages `sweep` and `sweep_lvc`: raw CAMs of the validation splits against the truth at every threshold at once, one part per
shard; with static calibration, or with the learnt relation. Also the zero-shot presence of each class."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from excel_core.background_pool import read_ahead
from excel_core.cams.presence import image_embedding, presence_scores
from excel_core.cams.seeds import learnt_cams, static_cams
from excel_core.config import RunSpec
from excel_core.evaluation.ablation import level_counts
from excel_core.stores import read_counts, write_counts
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import batches, in_shard
from tasks.inputs.masks import mask_reader_of, masked_images, masked_shards
from tasks.inputs.models import classes_of, load_cam_model, load_knowledge, load_trained, model_key
from tasks.inputs.photo_pixels import network_input, photo_reader
from tasks.stages.cams import ShardResult

__all__ = ["SweepResult", "join_sweep", "settings", "sweep_parts", "sweep_shard"]


class SweepResult(StageResult):
    """Images and classes."""

    images: int
    classes: int


def sweep_parts(job: Job) -> list[Part]:
    """A part depends on its images and masks, the texts and the CAM settings, and on the segmenter where it is used."""
    key = {"spec": settings(job.run), "model": model_key(job)}
    if "train" in job.inputs:
        key["train"] = job.inputs["train"].content
    return masked_shards(job, key)


@torch.inference_mode()
def sweep_shard(job: Job, part: Part, folder: Path) -> ShardResult:
    """Count pixels by truth, strongest class and CAM level; one forward pass per batch."""
    cam_model, split, run = load_cam_model(job), part.images.split, job.run
    masks = mask_reader_of(job, split)
    segmenter = load_trained(job, cam_model) if "train" in job.inputs else None
    templates = load_knowledge(job).knowledge.templates.to(cam_model.text)
    images = in_shard(part.images, masked_images(job, split))
    levels, presence = [], []
    for batch in track(batches(read_ahead(images, photo_reader(cam_model)), run.cams.batch_size), len):
        seeds = static_cams(cam_model, network_input(cam_model, [photo for _, photo in batch]))
        presence += presence_scores(image_embedding(cam_model.clip, seeds.activations), templates).cpu().tolist()
        if segmenter is not None:
            seeds = learnt_cams(cam_model, segmenter, seeds.network_input, run.refine, run.dynamic.mirror)
        for (image, _), cams in zip(batch, seeds.cams, strict=True):
            mask = masks.read(image.id, image.height, image.width)
            levels.append(level_counts(cams, image.classes, mask).assign(image=image.id))
    write_counts(folder / "levels.parquet", pd.concat(levels, ignore_index=True))
    scores = pd.DataFrame(presence, columns=list(classes_of(job)))
    scores.insert(0, "image", [image.id for image in images])
    write_counts(folder / "presence.parquet", scores)
    return ShardResult(images=len(images))


def join_sweep(job: Job, parts: dict[str, StageOutput], folder: Path) -> SweepResult:
    """All shards' counts with their splits."""
    split_of = {part.name: part.images.split for part in sweep_parts(job)}
    for file in ("levels.parquet", "presence.parquet"):
        tables = [read_counts(part.folder / file).assign(split=split_of[name]) for name, part in parts.items()]
        write_counts(folder / file, pd.concat(tables, ignore_index=True) if tables else pd.DataFrame())
    images = sum(part.result_as(ShardResult).images for part in parts.values())
    return SweepResult(images=images, classes=len(classes_of(job)))


def settings(run: RunSpec) -> dict[str, Any]:
    """How CAMs are made."""
    return run.cams.model_dump(mode="json")
