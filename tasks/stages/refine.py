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

__all__ = [
    "PSEUDO_LABELS", "LabelsResult", "join_label_shards", "label_lists", "labels_before_crf", "refine_parts", "refine_shard",
    "save_labels", "settings", "step_folder",
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
    reader = CamReader(job.folder("cams"))

    def read(image: ImageRecord) -> _Stored:
        classes, cams = reader.read(image.id)
        return _Stored(image.read(), classes, torch.from_numpy(cams), reader.attention(image.id))

    with BackgroundPool(cam_model.clip.device) as pool:
        for batch in batches(read_ahead(images, read), job.run.cams.batch_size):
            network_input = cam_model.prepare([stored.pixels for _, stored in batch])
            attention = _attention(cam_model, network_input, [stored for _, stored in batch], spec)
            for index, (image, stored) in track(list(enumerate(batch))):
                cams = stored.cams.to(attention)
                maps = refine_maps(stored.pixels, network_input[index], cams, attention[index], spec)
                pool.submit(save_labels, folder, image.id, stored.pixels, stored.classes, maps, spec)
            pool.drain()
    return LabelsResult(images=len(images), steps=step_names(spec))


class _Stored(NamedTuple):
    """What the disk holds of an image: its pixels (H, W, 3), its classes, their CAMs (K, h, w), and its attention (M, M)."""

    pixels: NDArray[np.uint8]
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


def save_labels(
    folder: Path, image: str, pixels: NDArray[np.uint8], classes: Sequence[int], maps: dict[str, Tensor], spec: RefineSpec
) -> None:
    """Finish one image's maps and write its label maps (H, W), the last step as the pseudo label."""
    for step, labels in label_steps(pixels, classes, maps, spec).items():
        save_labels_png(folder / step_folder(step, step_names(spec)) / f"{image}.png", labels)


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
