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
from excel_core.cams.cam_model import CamModel
from excel_core.cams.large_photos import large_label_steps
from excel_core.cams.pseudo_labels import label_steps, refine_maps, step_names
from excel_core.cams.seeds import patch_attention
from excel_core.config import RefineSpec, RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.stores import CamReader
from tasks.engine.fingerprint import clip_fingerprint, digest_of
from tasks.engine.output import StageOutput, StageResult, link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import ImageRecord, batches, cam_images, cam_shards, images_of, in_shard
from tasks.inputs.models import load_cam_model
from tasks.inputs.photo_pixels import ReadPhoto, network_input, photo_reader

__all__ = [
    "PSEUDO_LABELS", "LabelsResult", "Seed", "join_label_shards", "label_lists", "labels_before_crf", "refine_parts",
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
    """Read each image's CAMs and attention, refine, write; where no attention was kept, encode the image again."""
    cam_model, spec = load_cam_model(job), job.run.refine
    images = in_shard(part.images, cam_images(job, part.images.split))
    reader, read_photo = CamReader(job.folder("cams")), photo_reader(cam_model)

    def read(image: ImageRecord) -> _Stored:
        classes, cams = reader.read(image.id)
        return _Stored(read_photo(image), classes, torch.from_numpy(cams), reader.attention(image.id))

    with BackgroundPool(cam_model.clip.device) as pool:
        for batch in batches(read_ahead(images, read), job.run.cams.batch_size):
            inputs = network_input(cam_model, [stored.photo for _, stored in batch])
            attention = _attention(cam_model, inputs, [stored for _, stored in batch], spec)
            for index, (_, stored) in track(list(enumerate(batch))):
                cams = stored.cams.to(attention)
                seed = Seed(stored.classes, inputs[index], cams, attention[index])
                save_refined(pool, folder, stored.photo, seed, spec)
            pool.drain()
    return LabelsResult(images=len(images), steps=step_names(spec))


class _Stored(NamedTuple):
    """What the disk holds of an image: the photo, its classes, their CAMs (K, h, w), and its attention (M, M)."""

    photo: ReadPhoto
    classes: list[int]
    cams: Tensor
    attention: NDArray[np.float16] | None


def _attention(cam_model: CamModel, network_input: Tensor, batch: list[_Stored], spec: RefineSpec) -> Tensor:
    """network_input (B, 3, S, S) → (B, M, M) float32, on the device."""
    stored = [image.attention for image in batch if image.attention is not None]
    if len(stored) == len(batch):
        return torch.from_numpy(np.stack(stored)).to(cam_model.clip.device).float()
    return patch_attention(cam_model, network_input, spec)


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
    return {split: [image.id for image in images_of(job, split)] for split in job.run.dataset.cam_splits}


class Seed(NamedTuple):
    """What label maps are made of, beside the photo: K classes, network input (3, S, S), CAMs (K, h, w), attention (M, M)."""

    classes: Sequence[int]
    network_input: Tensor
    cams: Tensor
    attention: Tensor


def save_refined(pool: BackgroundPool, folder: Path, photo: ReadPhoto, seed: Seed, spec: RefineSpec) -> None:
    """Refine a photo's CAMs and write its label maps: on the pool, or, of a large photo, here and now, for memory's sake."""
    classes, pixels = seed.classes, photo.pixels()
    if not photo.is_large:
        maps = refine_maps(pixels, seed.network_input, seed.cams, seed.attention, spec)
        pool.submit(save_labels, folder, photo.image.id, pixels, classes, maps, spec)
        return
    for step, labels in large_label_steps(pixels, seed.network_input, classes, seed.cams, seed.attention, spec, folder):
        save_labels_png(_label_file(folder, step, spec, photo.image.id), labels)


def save_labels(
    folder: Path, image: str, pixels: NDArray[np.uint8], classes: Sequence[int], maps: dict[str, Tensor], spec: RefineSpec
) -> None:
    """Finish one image's maps and write its label maps (H, W), the last step as the pseudo label."""
    for step, labels in label_steps(pixels, classes, maps, spec).items():
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
