"""Stage `cams`: training-free static CAMs of the train split's image-level classes → cams.zarr, a shard a part."""

from typing import Any

import torch

from excel_core.config import RunSpec
from excel_core.side_threads import read_ahead
from excel_core.stores import join_cams, write_cams
from tasks.engine.outputs import link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Part, Stage, Work
from tasks.inputs.records import Record, batches, image_parts, records, shard_rows
from tasks.inputs.vision import load_vision, sight_key

__all__ = ["STAGE", "join_cam_parts"]


def cam_parts(work: Work) -> list[Part]:
    """A part depends on its images, the texts and the CAM spec."""
    split, key = work.run.dataset.train_split, {"spec": _spec(work.run), "sight": sight_key(work)}
    return image_parts(work, split, records(work, split), lambda shard, rows: key)


@torch.inference_mode()
def build_cam_part(work: Work) -> dict[str, Any]:
    """One forward pass a batch; only the image's own classes are stored."""
    vision = load_vision(work)
    rows = shard_rows(work, records(work, work.run.dataset.train_split))
    kept = []
    for batch in track(batches(read_ahead(rows, Record.read), work.run.cams.batch_size), len):
        cams = vision.cams(vision.encode(vision.prepare([image for _, image in batch]), whole=False)).float().cpu().numpy()
        kept += [cam[list(row.classes)] for (row, _), cam in zip(batch, cams, strict=True)]
    write_cams(work.folder, [row.id for row in rows], [row.classes for row in rows], kept)
    return {"images": len(rows)}


def join_cam_parts(work: Work) -> dict[str, Any]:
    """All shards in one cams.zarr."""
    for name, part in work.parts.items():
        link_tree(part.folder / "cams.zarr", work.folder / "cams.zarr" / name)
    images = join_cams(work.folder, {name: part.folder for name, part in work.parts.items()})
    size = sum(path.stat().st_size for path in (work.folder / "cams.zarr").rglob("*") if path.is_file())
    return {"images": images, "bytes_an_image": size / max(1, images)}


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.cams.model_dump(mode="json")


STAGE = Stage(
    "cams",
    ("dataset", "knowledge"),
    _spec,
    join_cam_parts,
    parts=cam_parts,
    build_part=build_cam_part,
    takes=lambda work: {},
    reads_data=True,
    on_device=True,
)
