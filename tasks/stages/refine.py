"""Stage `refine`: static CAMs → affinity → PAR → CRF → pseudo labels as palette PNGs in VOC layout, one part per shard.

`SegmentationClassPseudo/` holds the last enabled step, `steps/<step>/` the ones before it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.background_pool import BackgroundPool, read_ahead
from excel_core.cams.large_photos import large_label_steps
from excel_core.cams.packed_labels import PackedLabels, packed_labels, packs, runs_of_photos
from excel_core.cams.pseudo_labels import crf_steps, label_steps, refine_maps, step_names
from excel_core.cams.seeds import patch_attention
from excel_core.config import RefineSpec, RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.host_copies import to_device
from excel_core.kernels.gpu import has_triton
from excel_core.stores import CamReader
from tasks.engine.fingerprint import clip_fingerprint, digest_of
from tasks.engine.output import StageOutput, StageResult, link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import batches, cam_images, cam_shards, images_of, in_shard
from tasks.inputs.models import load_cam_model
from tasks.inputs.photo_pixels import BATCHES_AHEAD, ReadPhoto, images_per_batch, network_input, photo_batches

__all__ = [
    "PSEUDO_LABELS", "LabelsResult", "Seeds", "join_label_shards", "label_lists", "labels_before_crf", "refine_parts",
    "refine_shard", "save_labels", "save_refined", "settings", "step_folder",
]  # fmt: skip

PSEUDO_LABELS = "SegmentationClassPseudo"


class LabelsResult(StageResult):
    """Images with label maps, and the steps that made them, the pseudo labels' last."""

    images: int
    steps: list[str]


def refine_parts(job: Job) -> list[Part]:
    """A part depends on its images, the CAMs of the same shard, and the CLIP's attention."""
    key = {"spec": settings(job.run), "clip": clip_fingerprint(job.run.clip.model)}
    cams = job.inputs["cams"].parts
    return cam_shards(job, lambda shard, images: key | {"cams": cams[shard]})


@torch.inference_mode()
def refine_shard(job: Job, part: Part, folder: Path) -> LabelsResult:
    """Read the CAMs and attention of a batch of images, refine, write; where no attention was kept, encode the images again."""
    cam_model, spec = load_cam_model(job), job.run.refine
    images = in_shard(part.images, cam_images(job, part.images.split))
    reader, device = CamReader(job.folder("cams"), part.name), cam_model.clip.device
    groups = batches([image.id for image in images], images_per_batch(job.run.cams))
    with BackgroundPool(device) as pool:
        stored_cams = read_ahead(groups, reader.read_together, BATCHES_AHEAD)
        for photos, (_, stored) in zip(track(photo_batches(cam_model, images), len), stored_cams, strict=True):
            inputs = network_input(cam_model, photos)
            if stored.attention is None:
                attention = patch_attention(cam_model, inputs, spec)
            else:
                attention = to_device(stored.attention, device).float()
            seeds = Seeds(stored.classes, inputs, to_device(stored.cams, device), attention)
            save_refined(pool, folder, photos, seeds, spec)
            pool.drain()
    return LabelsResult(images=len(images), steps=step_names(spec))


def join_label_shards(job: Job, parts: dict[str, StageOutput], folder: Path) -> LabelsResult:
    """All shards' label maps in one folder, with the list file of each train and seed split as VOC has it."""
    for part in parts.values():
        for name in (PSEUDO_LABELS, "steps"):
            if (part.folder / name).is_dir():
                link_tree(part.folder / name, folder / name)
    for split, ids in _lists(job).items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{image}\n" for image in ids))
    results = [part.result_as(LabelsResult) for part in parts.values()]
    images = sum(result.images for result in results)
    return LabelsResult(images=images, steps=results[0].steps if results else [])


def label_lists(job: Job) -> dict[str, str]:
    """What the list files depend on. Parts do not tell: an image of several splits is in a part of the first alone."""
    return {"lists": digest_of(_lists(job))}


def _lists(job: Job) -> dict[str, list[str]]:
    """Ids of each train and seed split."""
    return {split: images_of(job, split).ids for split in job.run.dataset.cam_splits}


class Seeds(NamedTuple):
    """What the label maps of B photos are made of, beside the photos: class indices of each, network input (B, 3, S, S), CAMs
    (B, K, h, w) of a photo's classes, then of nothing, attention (B, M, M)."""

    classes: Sequence[Sequence[int]]
    network_input: Tensor
    cams: Tensor
    attention: Tensor


def save_refined(pool: BackgroundPool, folder: Path, photos: Sequence[ReadPhoto], seeds: Seeds, spec: RefineSpec) -> None:
    """Refine CAMs of photos and write their label maps: on the pool, or, of a large photo, here and now, for memory's sake. On
    a GPU with Triton, photos that are not large are refined together."""
    small = [index for index, photo in enumerate(photos) if not photo.is_large]
    together = has_triton(seeds.cams.device) and packs(spec)
    if together:
        _save_together(pool, folder, [photos[index] for index in small], _some(seeds, small), spec)
    for index, photo in enumerate(photos):
        classes, pixels = seeds.classes[index], photo.pixels
        cams, attention = seeds.cams[index, : len(classes)], seeds.attention[index]
        if photo.is_large:
            steps = large_label_steps(pixels(), seeds.network_input[index], classes, cams, attention, spec, folder)
            for step, labels in steps:
                save_labels_png(_label_file(folder, step, spec, photo.image.id), labels)
        elif not together:
            maps = refine_maps(pixels(), seeds.network_input[index], cams, attention, spec)
            pool.submit(save_labels, folder, photo.image.id, pixels(), classes, maps, spec)


def _some(seeds: Seeds, indices: list[int]) -> Seeds:
    if len(indices) == len(seeds.classes):
        return seeds
    classes = [seeds.classes[index] for index in indices]
    return Seeds(classes, seeds.network_input[indices], seeds.cams[indices], seeds.attention[indices])


def _save_together(pool: BackgroundPool, folder: Path, photos: Sequence[ReadPhoto], seeds: Seeds, spec: RefineSpec) -> None:
    """Refine photos on the GPU in few launches; their label maps are fetched and written on the pool, after a CRF if the GPU
    computes none."""
    pixels = [photo.pixels() for photo in photos]
    for run in runs_of_photos(pixels):
        part = Seeds(seeds.classes[run], seeds.network_input[run], seeds.cams[run], seeds.attention[run])
        packed = packed_labels(pixels[run], part.network_input, part.classes, part.cams, part.attention, spec)
        for index, photo in enumerate(photos[run]):
            pool.submit(_save_packed, folder, photo, part.classes[index], packed, index, spec)


def _save_packed(
    folder: Path, photo: ReadPhoto, classes: Sequence[int], packed: PackedLabels, index: int, spec: RefineSpec
) -> None:
    labels = packed.of_photo(index)
    if spec.crf.enabled and "crf" not in labels:
        labels |= crf_steps(photo.pixels(), classes, packed.scores_of_photo(index, len(classes) + 1), spec)
    _save_steps(folder, photo.image.id, labels, spec)


def save_labels(
    folder: Path, image: str, pixels: NDArray[np.uint8], classes: Sequence[int], maps: dict[str, Tensor], spec: RefineSpec
) -> None:
    """Finish one image's maps and write its label maps (H, W), the last step as the pseudo label."""
    _save_steps(folder, image, label_steps(pixels, classes, maps, spec), spec)


def _save_steps(folder: Path, image: str, steps: dict[str, NDArray[np.uint8]], spec: RefineSpec) -> None:
    for step, labels in steps.items():
        save_labels_png(_label_file(folder, step, spec, image), labels)


def _label_file(folder: Path, step: str, spec: RefineSpec, image: str) -> Path:
    return folder / step_folder(step, step_names(spec)) / f"{image}.png"


def step_folder(step: str, steps: list[str]) -> Path:
    """Where a step's PNGs are, relative to the output folder."""
    return Path(PSEUDO_LABELS) if step == steps[-1] else Path("steps") / step


def labels_before_crf(output: StageOutput) -> Path:
    """The folder of the last step's label maps before the CRF: training's own static labels have none."""
    steps = output.result_as(LabelsResult).steps
    return output.folder / step_folder([step for step in steps if step != "crf"][-1], steps)


def settings(run: RunSpec) -> dict[str, Any]:
    """How CAMs are made and refined."""
    return {"refine": run.refine.model_dump(mode="json"), "cams": run.cams.model_dump(mode="json")}
