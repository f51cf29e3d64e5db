"""Stage `cams`: training-free static CAMs of the train split's image-level classes → cams.zarr."""

from typing import Any

import torch

from excel_core.config import RunSpec
from excel_core.stores import CamWriter
from tasks.fingerprint import clip_fingerprint
from tasks.progress import track
from tasks.stage import Stage, Work
from tasks.vision import batches, load_vision, records

__all__ = ["STAGE", "cam_bytes"]


@torch.inference_mode()
def build_cams(work: Work) -> dict[str, Any]:
    """One forward pass a batch; only the image's own classes are stored."""
    vision = load_vision(work)
    rows = records(work, work.run.dataset.train_split)
    side = work.run.cams.image_size // vision.clip.patch
    slots = max((len(row.classes) for row in rows), default=1)
    writer = CamWriter(work.folder, [row.id for row in rows], slots, (side, side), work.run.cams.shard_images)
    total = -(-len(rows) // work.run.cams.batch_size)
    for batch in track(batches(rows, work.run.cams.batch_size), "cams", total):
        cams = vision.cams(vision.encode(vision.prepare([row.read() for row in batch]))).float().cpu().numpy()
        for row, cam in zip(batch, cams, strict=True):
            writer.append(row.classes, cam[list(row.classes)])
    writer.close()
    return {"images": len(rows), "slots": slots, "bytes_an_image": cam_bytes(work) / max(1, len(rows))}


def cam_bytes(work: Work) -> int:
    """Size of the folder's cams.zarr on disk."""
    return sum(path.stat().st_size for path in (work.folder / "cams.zarr").rglob("*") if path.is_file())


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.cams.model_dump(mode="json") | {"split": run.dataset.train_split}


STAGE = Stage("cams", ("dataset", "knowledge"), _spec, build_cams, outside=clip_fingerprint)
