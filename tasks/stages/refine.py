"""Stage `refine`: static CAMs → affinity → PAR → CRF → pseudo labels as palette PNGs in VOC layout, one part per shard.

`SegmentationClassPseudo/` holds the last enabled step, `steps/<step>/` the ones before it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.background_pool import BackgroundPool, read_ahead
from excel_core.cams.large_photos import large_label_steps
from excel_core.cams.mask_votes import voted_labels
from excel_core.cams.packed_labels import PackedLabels, packed_labels, packs, runs_of_photos
from excel_core.cams.pseudo_labels import crf_steps, label_steps, refine_maps, step_names, voted_step
from excel_core.cams.seeds import patch_attention
from excel_core.config import RefineSpec, RunSpec
from excel_core.datasets.mask_proposals import Proposals, proposals_file, read_proposals
from excel_core.datasets.palette import save_labels_png
from excel_core.host_copies import to_device
from excel_core.kernels.gpu import has_triton
from excel_core.stores import CamReader
from tasks.engine.fingerprint import clip_fingerprint, digest_of
from tasks.engine.output import StageOutput, StageResult, link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Dependency, Job, Part, RunEnvironment
from tasks.inputs.images import ImageRecord, batches, cam_images, cam_shards, images_of, in_shard
from tasks.inputs.models import load_cam_model
from tasks.inputs.photo_pixels import BATCHES_AHEAD, ReadPhoto, images_per_batch, network_input, photo_batches
from tasks.stages.proposals import MASKS

__all__ = [
    "MASK_SOURCES", "PSEUDO_LABELS", "LabelWriter", "LabelsResult", "Seeds", "join_label_shards", "label_lists",
    "labels_before_crf", "mask_proposals", "masks_key", "refine_parts", "refine_shard", "save_refined", "settings",
    "step_folder",
]  # fmt: skip

PSEUDO_LABELS = "SegmentationClassPseudo"
MASK_SOURCES = {"votes": {"masks", "model"}}  # settings that the proposals' own content stands for


class LabelsResult(StageResult):
    """Images with label maps, and the steps that made them, the pseudo labels' last."""

    images: int
    steps: list[str]


def refine_parts(job: Job) -> list[Part]:
    """A part depends on its images, the CAMs of the same shard, and the CLIP's attention."""
    key = {"spec": settings(job.run), "clip": clip_fingerprint(job.run.clip.model)}
    cams = job.inputs["cams"].parts
    return cam_shards(job, lambda shard, images: key | {"cams": cams[shard]} | masks_key(job, shard))


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
            save_refined(pool, LabelWriter.of(job, folder, spec), photos, seeds)
            pool.drain()
    return LabelsResult(images=len(images), steps=step_names(spec))


def mask_proposals(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """The masks that vote on label maps, where they do."""
    return {"proposals": Dependency("proposals", run)} if run.refine.votes.enabled else {}


def masks_key(job: Job, shard: str) -> dict[str, str]:
    """What a part of label maps depends on for their sake."""
    return {"proposals": job.inputs["proposals"].parts[shard]} if "proposals" in job.inputs else {}


@dataclass(frozen=True)
class LabelWriter:
    """Writes an image's label maps below `folder`, the last step as the pseudo label; `masks`: where those are that vote."""

    folder: Path
    spec: RefineSpec
    masks: Path | None = None

    @classmethod
    def of(cls, job: Job, folder: Path, spec: RefineSpec) -> "LabelWriter":
        """With the job's proposals, if it reads any."""
        masks = job.folder("proposals") / MASKS if "proposals" in job.inputs else None
        return cls(folder, spec, masks)

    def write(self, image: ImageRecord, steps: Iterable[tuple[str, NDArray[np.uint8]]]) -> None:
        """Label maps (H, W) by step; of steps that are made one by one, one map is held at a time, and the one that masks vote
        on."""
        to_vote_on = None
        for step, labels in steps:
            self._save(step, image, labels)
            to_vote_on = labels if step == voted_step(self.spec) else to_vote_on
        if self.masks is not None and to_vote_on is not None:
            file = proposals_file(self.masks, image.id)
            proposals = read_proposals(file, image.height, image.width) if file.is_file() else Proposals()
            self._save("votes", image, voted_labels(to_vote_on, proposals, self.spec.votes))

    def _save(self, step: str, image: ImageRecord, labels: NDArray[np.uint8]) -> None:
        save_labels_png(self.folder / step_folder(step, step_names(self.spec)) / f"{image.id}.png", labels)


def join_label_shards(job: Job, parts: dict[str, StageOutput], folder: Path) -> LabelsResult:
    """All shards' label maps in one folder, with the list file of each train and seed split as VOC has it."""
    for part in parts.values():
        for name in (PSEUDO_LABELS, "steps"):
            if (part.folder / name).is_dir():
                link_tree(part.folder / name, folder / name)
    for split, ids in _lists(job).items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{image}\n" for image in ids), encoding="utf-8")
    shard_results = [part.result_as(LabelsResult) for part in parts.values()]
    images = sum(result.images for result in shard_results)
    return LabelsResult(images=images, steps=shard_results[0].steps if shard_results else [])


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


def save_refined(pool: BackgroundPool, writer: LabelWriter, photos: Sequence[ReadPhoto], seeds: Seeds) -> None:
    """Refine CAMs of photos and write their label maps: on the pool, or, of a large photo, here and now, for memory's sake. On
    a GPU with Triton, photos that are not large are refined together."""
    spec = writer.spec
    small = [index for index, photo in enumerate(photos) if not photo.is_large]
    together = has_triton(seeds.cams.device) and packs(spec)
    if together:
        _save_together(pool, writer, [photos[index] for index in small], _some(seeds, small))
    for index, photo in enumerate(photos):
        classes, pixels = seeds.classes[index], photo.pixels
        cams, attention = seeds.cams[index, : len(classes)], seeds.attention[index]
        if photo.is_large:
            steps = large_label_steps(pixels(), seeds.network_input[index], classes, cams, attention, spec, writer.folder)
            writer.write(photo.image, steps)
        elif not together:
            maps = refine_maps(pixels(), seeds.network_input[index], cams, attention, spec)
            pool.submit(_save_labels, writer, photo, classes, maps)


def _some(seeds: Seeds, indices: list[int]) -> Seeds:
    if len(indices) == len(seeds.classes):
        return seeds
    classes = [seeds.classes[index] for index in indices]
    return Seeds(classes, seeds.network_input[indices], seeds.cams[indices], seeds.attention[indices])


def _save_together(pool: BackgroundPool, writer: LabelWriter, photos: Sequence[ReadPhoto], seeds: Seeds) -> None:
    """Refine photos on the GPU in few launches; their label maps are fetched and written on the pool, after a CRF if the GPU
    computes none."""
    pixels = [photo.pixels() for photo in photos]
    for run in runs_of_photos(pixels):
        of_run = Seeds(seeds.classes[run], seeds.network_input[run], seeds.cams[run], seeds.attention[run])
        packed = packed_labels(pixels[run], of_run.network_input, of_run.classes, of_run.cams, of_run.attention, writer.spec)
        for index, photo in enumerate(photos[run]):
            pool.submit(_save_packed, writer, photo, of_run.classes[index], packed, index)


def _save_packed(writer: LabelWriter, photo: ReadPhoto, classes: Sequence[int], packed: PackedLabels, index: int) -> None:
    labels, spec = packed.of_photo(index), writer.spec
    if spec.crf.enabled and "crf" not in labels:
        labels |= crf_steps(photo.pixels(), classes, packed.scores_of_photo(index, len(classes) + 1), spec)
    writer.write(photo.image, labels.items())


def _save_labels(writer: LabelWriter, photo: ReadPhoto, classes: Sequence[int], maps: dict[str, Tensor]) -> None:
    """Finish one image's maps and write its label maps."""
    writer.write(photo.image, label_steps(photo.pixels(), classes, maps, writer.spec).items())


def step_folder(step: str, steps: list[str]) -> Path:
    """Where a step's PNGs are, relative to the output folder."""
    return Path(PSEUDO_LABELS) if step == steps[-1] else Path("steps") / step


def labels_before_crf(output: StageOutput) -> Path:
    """The folder of the last step's label maps before CRF and votes: training's own static labels have none."""
    steps = output.result_as(LabelsResult).steps
    return output.folder / step_folder([step for step in steps if step not in ("crf", "confident", "votes")][-1], steps)


def settings(run: RunSpec) -> dict[str, Any]:
    """How CAMs are made and refined."""
    return {"refine": run.refine.model_dump(mode="json", exclude=MASK_SOURCES), "cams": run.cams.model_dump(mode="json")}
