"""Stage `cams`: training-free static CAMs of the image-level classes of train and seed splits → cams.zarr, one part per shard,
with the attention that `refine` will need, so that an image is encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from excel_core.background_pool import BackgroundPool
from excel_core.cams.presence import presence_scores
from excel_core.cams.producers import seed_cams
from excel_core.cams.pseudo_labels import class_slots
from excel_core.config import CamSpec, RunSpec
from excel_core.host_copies import HostCopy, to_device
from excel_core.models.photo_input import photo_grid
from excel_core.stores import CamWriter, join_cams, write_counts
from tasks.engine.fingerprint import digest_of
from tasks.engine.output import StageOutput, StageResult, link_file, link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import ImageRecord, cam_images, cam_shards, in_shard
from tasks.inputs.models import load_cam_model, load_knowledge, model_key
from tasks.inputs.photo_pixels import network_input, photo_batches

__all__ = [
    "CamsResult", "ShardResult", "cam_parts", "join_cam_shards", "join_cams_and_presence", "make_cam_shard", "photo_grids",
    "settings",
]  # fmt: skip

MAX_PATCHES = 1024  # of an image whose attention is kept, which then takes 2 MB


class ShardResult(StageResult):
    """Images of a shard."""

    images: int


class CamsResult(StageResult):
    """Images with CAMs, and what they take on disk per image."""

    images: int
    bytes_per_image: float
    attention_bytes_per_image: float


def cam_parts(job: Job) -> list[Part]:
    """A part depends on its images, the texts, the CAM settings, and on which attention is kept; its presence scores on the
    plain templates."""
    templates = load_knowledge(job).knowledge.templates.contiguous().numpy()
    key = {"spec": settings(job.run), "model": model_key(job), "templates": digest_of(templates.tobytes().hex())}
    return cam_shards(job, lambda shard, images: key)


@torch.inference_mode()
def make_cam_shard(job: Job, part: Part, folder: Path) -> ShardResult:
    """One forward pass per batch; only the image's own classes are stored."""
    cam_model = load_cam_model(job)
    images = in_shard(part.images, cam_images(job, part.images.split))
    refine = job.run.refine if _keeps_attention(job.run, cam_model.clip.patch) else None
    device, patch = cam_model.clip.device, cam_model.clip.patch
    grids = photo_grids(images, patch, job.run.cams)
    templates = load_knowledge(job).knowledge.templates.to(cam_model.text)
    presence: list[HostCopy] = []
    with BackgroundPool(device) as pool:
        ids, classes = [image.id for image in images], [image.classes for image in images]
        writer = CamWriter(folder, ids, classes, pool.submit, grids)
        for photos in track(photo_batches(cam_model, images), len):
            slots = to_device(class_slots([photo.image.classes for photo in photos]).numpy(), device)
            seeds = seed_cams(cam_model, network_input(cam_model, photos), slots, refine)
            presence.append(HostCopy(presence_scores(seeds.embedding, templates).float()))
            attention = None if seeds.attention is None else HostCopy(seeds.attention.half())
            writer.add(len(photos), HostCopy(seeds.cams.half()), attention)
            pool.drain()
        writer.close()
    scores = pd.DataFrame(np.concatenate([part.numpy() for part in presence]), columns=[str(c) for c in range(len(templates))])
    scores.insert(0, "image", ids)
    write_counts(folder / "presence.parquet", scores)
    return ShardResult(images=len(images))


def photo_grids(images: Sequence[ImageRecord], patch: int, spec: CamSpec) -> list[tuple[int, int]] | None:
    """The grid of each image's CAMs, where each has its own."""
    grids = [photo_grid((image.height, image.width), patch, spec) for image in images]
    return [grid for grid in grids if grid is not None] or None


def _keeps_attention(run: RunSpec, patch: int) -> bool:
    """It grows with the square of the number of patches, and photos whose shape is kept have different numbers. That of windows
    is made again."""
    if run.cams.input != "square" or run.cams.window is not None:
        return False
    patches = (run.cams.image_size // patch) ** 2
    return run.shards.keep_attention and run.refine.affinity.enabled and patches <= MAX_PATCHES


def join_cams_and_presence(job: Job, parts: dict[str, StageOutput], folder: Path) -> CamsResult:
    """All shards in one cams.zarr, and a file of presence scores each."""
    for name, part in parts.items():
        target = folder / "presence" / f"{name}.parquet"
        target.parent.mkdir(exist_ok=True)
        link_file(part.folder / "presence.parquet", target)
    return join_cam_shards(job, parts, folder)


def join_cam_shards(job: Job, parts: dict[str, StageOutput], folder: Path) -> CamsResult:
    """All shards in one cams.zarr."""
    for name, part in parts.items():
        link_tree(part.folder / "cams.zarr", folder / "cams.zarr" / name)
    images = join_cams(folder, {name: part.folder for name, part in parts.items()})
    sizes = {"cams": 0, "attention": 0}
    for path in (folder / "cams.zarr").rglob("*"):
        if path.is_file():
            array = "attention" if "attention" in path.relative_to(folder).parts else "cams"
            sizes[array] += path.stat().st_size
    per_image = {array: size / max(1, images) for array, size in sizes.items()}
    return CamsResult(images=images, bytes_per_image=per_image["cams"], attention_bytes_per_image=per_image["attention"])


def settings(run: RunSpec) -> dict[str, Any]:
    """How CAMs are made; where attention is kept, which."""
    fields = {"cams": run.cams.model_dump(mode="json"), "shards": {"keep_attention": run.shards.keep_attention}}
    if run.shards.keep_attention:
        fields["refine"] = {"affinity": run.refine.affinity.model_dump(mode="json", include={"enabled", "layers", "scale"})}
    return fields
