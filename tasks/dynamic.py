"""Stage `dynamic`: CAMs of the train split with the learnt relation (LVC), and their refined label maps."""

from typing import Any

import torch

from excel_core.config import RunSpec
from excel_core.seeds import refine_labels
from excel_core.stores import CamWriter
from tasks.cams import cam_bytes
from tasks.fingerprint import clip_fingerprint
from tasks.progress import track
from tasks.refine import save_steps, write_split
from tasks.stage import Stage, Work
from tasks.train import trained_segmenter
from tasks.vision import batches, load_vision, records

__all__ = ["STAGE"]


@torch.inference_mode()
def build_dynamic(work: Work) -> dict[str, Any]:
    """As `cams` and `refine`, with each image's relation added to the attention and multiplied onto the affinity."""
    vision, spec = load_vision(work), work.run.refine
    segmenter = trained_segmenter(work, vision)
    rows = records(work, work.run.dataset.train_split)
    side = work.run.cams.image_size // vision.clip.patch
    slots = max((len(row.classes) for row in rows), default=1)
    writer = CamWriter(work.folder, [row.id for row in rows], slots, (side, side), work.run.cams.shard_images)
    steps: list[str] = []
    size = work.run.cams.batch_size
    for batch in track(batches(rows, size), "dynamic", -(-len(rows) // size)):
        images = [row.read() for row in batch]
        encoded = vision.encode(vision.prepare(images), spec.affinity.layers)
        relation = vision.relation(segmenter, encoded)
        cams, attention = vision.cams(encoded, relation).float(), vision.attention(encoded.path, spec, relation)
        for i, row in enumerate(batch):
            kept = cams[i, list(row.classes)]
            writer.append(row.classes, kept.cpu().numpy())
            labels = refine_labels(images[i], row.classes, kept, attention[i], spec)
            steps = list(labels)
            save_steps(work.folder, row.id, labels)
    writer.close()
    write_split(work.folder, work.run.dataset.train_split, (row.id for row in rows))
    return {"images": len(rows), "steps": steps, "bytes_an_image": cam_bytes(work) / max(1, len(rows))}


def _spec(run: RunSpec) -> dict[str, Any]:
    return {
        "cams": run.cams.model_dump(mode="json"),
        "refine": run.refine.model_dump(mode="json"),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "split": run.dataset.train_split,
    }


STAGE = Stage("dynamic", ("dataset", "knowledge", "train"), _spec, build_dynamic, outside=clip_fingerprint)
