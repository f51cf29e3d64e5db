"""Stage `dynamic`: CAMs of train and seed splits with the learnt relation (LVC), and refined label maps, one part per shard."""

from pathlib import Path
from typing import Any

import torch

from excel_core.background_pool import BackgroundPool
from excel_core.cams.producers import learnt_refine_spec, learnt_seeds
from excel_core.cams.pseudo_labels import class_slots, step_names
from excel_core.config import RunSpec
from excel_core.host_copies import HostCopy, to_device
from excel_core.stores import CamWriter
from tasks.engine.output import StageOutput
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import cam_images, cam_shards, in_shard
from tasks.inputs.models import load_cam_model, load_trained, model_key
from tasks.inputs.photo_pixels import network_input, photo_batches
from tasks.stages.cams import CamsResult, join_cam_shards, photo_grids
from tasks.stages.refine import MASK_SOURCES, LabelsResult, LabelWriter, Seeds, join_label_shards, masks_key, save_refined

__all__ = ["DynamicResult", "dynamic_parts", "join_dynamic_shards", "make_dynamic_shard", "settings"]


class DynamicResult(CamsResult, LabelsResult):
    """Of CAMs and of label maps."""


def dynamic_parts(job: Job) -> list[Part]:
    """A part depends on its images, the texts, and the trained segmenter."""
    key = {"spec": settings(job.run), "model": model_key(job), "train": job.inputs["train"].content}
    return cam_shards(job, lambda shard, images: key | masks_key(job, shard))


@torch.inference_mode()
def make_dynamic_shard(job: Job, part: Part, folder: Path) -> LabelsResult:
    """As `cams` and `refine`, with each image's relation in the attention and multiplied onto the affinity."""
    cam_model = load_cam_model(job)
    segmenter = load_trained(job, cam_model)
    images = in_shard(part.images, cam_images(job, part.images.split))
    patch, spec = cam_model.clip.patch, learnt_refine_spec(job.run)
    with BackgroundPool(cam_model.clip.device) as pool:
        ids, grids = [image.id for image in images], photo_grids(images, patch, job.run.cams)
        writer = CamWriter(folder, ids, [image.classes for image in images], pool.submit, grids)
        for photos in track(photo_batches(cam_model, images), len):
            inputs, classes = network_input(cam_model, photos), [photo.image.classes for photo in photos]
            slots = to_device(class_slots(classes).numpy(), inputs.device)
            seeds = learnt_seeds(cam_model, segmenter, inputs, slots, job.run)
            assert seeds.attention is not None
            writer.add(len(photos), HostCopy(seeds.cams.half()))
            label_seeds = Seeds(classes, inputs, seeds.cams, seeds.attention)
            save_refined(pool, LabelWriter.of(job, folder, spec), photos, label_seeds)
            pool.drain()
        writer.close()
    return LabelsResult(images=len(images), steps=step_names(spec))


def join_dynamic_shards(job: Job, parts: dict[str, StageOutput], folder: Path) -> DynamicResult:
    """CAMs and label maps of all shards."""
    labels, cams = join_label_shards(job, parts, folder), join_cam_shards(job, parts, folder)
    return DynamicResult(**labels.model_dump() | cams.model_dump())


def settings(run: RunSpec) -> dict[str, Any]:
    """How CAMs are made with the learnt relation, and refined."""
    return {
        "cams": run.cams.model_dump(mode="json"),
        "refine": run.refine.model_dump(mode="json", exclude=MASK_SOURCES),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "dynamic": run.dynamic.model_dump(mode="json"),
        "guided": run.train.guided_from is not None,
    }
