"""Stage `predict`: the trained segmenter's label maps of the validation and test splits, one part per shard. Opens no mask.

<variant>/<split>/<id>.png     palette PNG of the image's size; variants single_scale, multi_scale, multi_scale_crf
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.background_pool import BackgroundPool, read_ahead
from excel_core.cams.crf_on_device import runs_on_device
from excel_core.config import PredictSpec, RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.disk_maps import is_large
from excel_core.prediction.trained_segmenter import TrainedSegmenter
from tasks.engine.fingerprint import clip_fingerprint, dino_fingerprint
from tasks.engine.output import StageOutput, StageResult, link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import ImageRecord, ImageTable, batches, image_shards, images_of, in_shard
from tasks.inputs.models import classes_of, load_cam_model, load_trained
from tasks.stages.cams import ShardResult

__all__ = [
    "PredictResult", "input_key", "join_predictions", "predict_parts", "predict_shard", "predicted_images", "predicted_splits",
    "variants",
]  # fmt: skip

Labels = NDArray[np.uint8]
PHOTOS_AT_ONCE = 16  # on a GPU


class PredictResult(StageResult):
    """Kinds of label maps, the best last, and images by split."""

    variants: list[str]
    images: dict[str, int]


def predicted_splits(run: RunSpec) -> list[str]:
    """Splits that the segmenter labels, in order."""
    return list(dict.fromkeys((*run.dataset.val_splits, *run.dataset.test_splits)))


def predicted_images(job: Job, split: str) -> ImageTable:
    """The images of a split that the segmenter labels."""
    return images_of(job, split)[: job.run.predict.max_images]


def variants(spec: PredictSpec) -> list[str]:
    """Kinds of label maps, the best last."""
    return ["single_scale", "multi_scale", *(["multi_scale_crf"] if spec.crf else [])]


def predict_parts(job: Job) -> list[Part]:
    """A part depends on its images, the CLIP, the trained segmenter and how it is used; not on labels and texts."""
    clip, segmenter = clip_fingerprint(job.run.clip.model), job.inputs["train"].content
    key: dict[str, Any] = {"spec": settings(job.run), "train": segmenter, "clip": clip}
    if job.run.dino.model is not None:
        key["dino"] = dino_fingerprint(job.run.dino.model)
    parts: list[Part] = []
    for split in predicted_splits(job.run):
        parts += image_shards(job, split, lambda shard, images: key, among=predicted_images(job, split))
    return parts


@torch.inference_mode()
def predict_shard(job: Job, part: Part, folder: Path) -> ShardResult:
    """Segment each image at every scale. On a CPU, CLIP sees it alone, as a user's single photo is seen; a GPU takes several at
    once, which changes the last bits."""
    split, run = part.images.split, job.run
    cam_model = load_cam_model(job)
    trained = TrainedSegmenter.of(cam_model, load_trained(job, cam_model), classes_of(job), run)
    images = in_shard(part.images, predicted_images(job, split))
    with BackgroundPool(cam_model.clip.device) as pool:
        together = PHOTOS_AT_ONCE if pool.beside else 1
        for batch in batches(track(read_ahead(images, _read_small)), max(together, torch.get_num_threads())):
            small = [(Path(split) / f"{image.id}.png", pixels) for image, pixels in batch if pixels is not None]
            for photos in batches(small, together):
                _segment(pool, folder, trained, photos)
            for image in (image for image, pixels in batch if pixels is None):
                _save_large(folder, Path(split) / f"{image.id}.png", trained, image.read())
            pool.drain()
    return ShardResult(images=len(images))


def _segment(pool: BackgroundPool, folder: Path, trained: TrainedSegmenter, photos: list[tuple[Path, Labels]]) -> None:
    """Label maps of photos, each with its name, written on the pool; the CRF where the device is, or else on the pool."""
    pixels = [photo for _, photo in photos]
    single, multi = trained.segment_together(pixels), trained.segment_together(pixels, multi_scale=True)
    refined: list[Tensor | None] = [None] * len(photos)
    if trained.predict_spec.crf and runs_on_device(multi[0].device, trained.crf):
        refined = [values.argmax(dim=0) for values in trained.refine_together(pixels, multi)]
    for (name, photo), *maps in zip(photos, single, multi, refined, strict=True):
        pool.submit(_save, folder, name, trained, photo, *maps)


def _read_small(image: ImageRecord) -> Labels | None:
    """The pixels, or None of a large photo, which is read when its turn comes."""
    return None if is_large((image.height, image.width)) else image.read()


def _save_large(folder: Path, name: Path, trained: TrainedSegmenter, pixels: Labels) -> None:
    """As `_save`, class by class and window by window."""
    save_labels_png(folder / "single_scale" / name, trained.label_steps(pixels, folder=folder)["segmenter"])
    steps = trained.label_steps(pixels, multi_scale=True, crf=trained.predict_spec.crf, folder=folder)
    for step, variant in (("segmenter", "multi_scale"), ("crf", "multi_scale_crf")):
        if step in steps:
            save_labels_png(folder / variant / name, steps[step])


def _save(
    folder: Path, name: Path, trained: TrainedSegmenter, pixels: Labels, single: Tensor, multi: Tensor, refined: Tensor | None
) -> None:
    """Label maps of an image (H, W, 3) by its logits (C+1, H, W), the only full-size arrays of all classes there are, and,
    where the CRF was computed before, its labels (H, W)."""
    maps = {"single_scale": _argmax(single), "multi_scale": _argmax(multi)}
    if refined is not None:
        maps["multi_scale_crf"] = refined.cpu().numpy().astype(np.uint8)
    elif trained.predict_spec.crf:
        maps["multi_scale_crf"] = trained.refine(pixels, multi).argmax(axis=0).astype(np.uint8)
    for variant, labels in maps.items():
        save_labels_png(folder / variant / name, labels)


def _argmax(logits: Tensor) -> Labels:
    return logits.argmax(dim=0).cpu().numpy().astype(np.uint8)


def join_predictions(job: Job, parts: dict[str, StageOutput], folder: Path) -> PredictResult:
    """All shards' label maps, one folder per variant and split."""
    names = variants(job.run.predict)
    for part in parts.values():
        for variant in names:
            link_tree(part.folder / variant, folder / variant)
    images = {split: len(predicted_images(job, split)) for split in predicted_splits(job.run)}
    return PredictResult(variants=names, images=images)


def input_key(job: Job) -> dict[str, Any]:
    """Beside the parts: which splits there are."""
    return {"splits": predicted_splits(job.run)}


def settings(run: RunSpec) -> dict[str, Any]:
    """Scales, flips, the network input and the CRF."""
    return {
        "predict": run.predict.model_dump(mode="json", exclude={"max_images"}),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size", "image_size"}),
        "crf": run.refine.crf.model_dump(mode="json", exclude={"enabled"}) if run.predict.crf else None,
    }
