"""Stage `predict`: the trained segmenter's label maps of the validation and test splits, a shard a part. Opens no mask.

<variant>/<split>/<id>.png     palette PNG of the image's size; variants single_scale, multi_scale, multi_scale_crf
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.crf import dense_crf
from excel_core.config import PredictSpec, RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.prediction.inference import segment_multi_scale, segment_single_scale
from tasks.engine.background_pool import BackgroundPool, read_ahead
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.outputs import link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Part, Stage, Work
from tasks.inputs.cam_model import load_cam_model
from tasks.inputs.records import Record, batches, image_parts, records, shard_rows
from tasks.train import trained_segmenter

__all__ = ["STAGE", "predicted_rows", "predicted_splits", "variants"]

Labels = NDArray[np.uint8]


def predicted_splits(run: RunSpec) -> list[str]:
    """Splits that the segmenter labels, in order."""
    return list(dict.fromkeys((*run.dataset.val_splits, *run.dataset.test_splits)))


def predicted_rows(work: Work, split: str) -> list[Record]:
    """The images of a split that the segmenter labels."""
    return records(work, split)[: work.run.predict.max_images]


def variants(spec: PredictSpec) -> list[str]:
    """Kinds of label maps, the best last."""
    return ["single_scale", "multi_scale", *(["multi_scale_crf"] if spec.crf else [])]


def predict_parts(work: Work) -> list[Part]:
    """A part depends on its images, the CLIP, the trained segmenter and how it is used; not on labels and texts."""
    train, clip = work.inputs["train"].content, clip_fingerprint(work.run, work.place)
    key = {"spec": _spec(work.run), "train": train, "clip": clip}
    return [
        part
        for split in predicted_splits(work.run)
        for part in image_parts(work, split, records(work, split), lambda shard, rows: key, among=predicted_rows(work, split))
    ]


@torch.inference_mode()
def build_predict_part(work: Work) -> dict[str, Any]:
    """Segment each image at every scale; CLIP sees it alone, as a user's single photo is seen."""
    split, spec = work.this_part.about["split"], work.run.predict
    cam_model = load_cam_model(work)
    segmenter = trained_segmenter(work, cam_model)
    cam_model = replace(cam_model, spec=cam_model.spec.model_copy(update={"image_size": spec.image_size}))
    rows = shard_rows(work, predicted_rows(work, split))
    with BackgroundPool(cam_model.clip.device) as side:
        for batch in batches(track(read_ahead(rows, Record.read)), torch.get_num_threads()):
            for row, image in batch:
                single, multi = (
                    segment_single_scale(cam_model, segmenter, image),
                    segment_multi_scale(cam_model, segmenter, image, spec),
                )
                side.call(_save, work, row, image, single, multi)
            side.drain()
    return {"images": len(rows)}


def _save(work: Work, row: Record, image: Labels, single: Tensor, multi: Tensor) -> None:
    """Label maps of an image (H, W, 3) by its logits (C+1, H, W), the only full-size arrays of all classes there are."""
    found = {"single_scale": _argmax(single), "multi_scale": _argmax(multi)}
    if work.run.predict.crf:
        refined = dense_crf(image, torch.softmax(multi, dim=0).cpu().numpy(), work.run.refine.crf)
        found["multi_scale_crf"] = refined.argmax(axis=0).astype(np.uint8)
    for variant, labels in found.items():
        save_labels_png(work.folder / variant / work.this_part.about["split"] / f"{row.id}.png", labels)


def join_predict_parts(work: Work) -> dict[str, Any]:
    """All shards' label maps, a folder a variant and split."""
    names = variants(work.run.predict)
    for part in work.parts.values():
        for variant in names:
            link_tree(part.folder / variant, work.folder / variant)
    return {
        "variants": names,
        "images": {split: len(predicted_rows(work, split)) for split in predicted_splits(work.run)},
    }


def _argmax(logits: Tensor) -> Labels:
    return logits.argmax(dim=0).cpu().numpy().astype(np.uint8)


def _spec(run: RunSpec) -> dict[str, Any]:
    return {
        "predict": run.predict.model_dump(mode="json", exclude={"max_images"}),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size", "image_size"}),
        "crf": run.refine.crf.model_dump(mode="json", exclude={"enabled"}) if run.predict.crf else None,
    }


STAGE = Stage(
    "predict",
    ("dataset", "knowledge", "train"),
    _spec,
    join_predict_parts,
    parts=predict_parts,
    build_part=build_predict_part,
    takes=lambda work: {"splits": predicted_splits(work.run)},  # the rest is its parts'
    reads_data=True,
    on_device=True,
)
