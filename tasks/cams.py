"""Stage `cams`: training-free static CAMs of the image-level classes of train and seed splits → cams.zarr, a shard a part,
with the attention that `refine` will want, so that an image is encoded once."""

from typing import Any

import torch

from excel_core.config import RunSpec
from excel_core.stores import join_cams, write_cams
from tasks.engine.background_pool import read_ahead
from tasks.engine.outputs import link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Part, Stage, Work
from tasks.inputs.cam_model import load_cam_model, model_key
from tasks.inputs.records import Record, batches, cam_image_parts, cam_records, shard_rows

__all__ = ["STAGE", "join_cam_parts"]

MOST_PATCHES = 1024  # 2 MB an image


def cam_parts(work: Work) -> list[Part]:
    """A part depends on its images, the texts, the CAM spec, and on which attention is kept."""
    key = {"spec": _spec(work.run), "sight": model_key(work)}
    return cam_image_parts(work, lambda shard, rows: key)


@torch.inference_mode()
def build_cam_part(work: Work) -> dict[str, Any]:
    """One forward pass a batch; only the image's own classes are stored."""
    cam_model = load_cam_model(work)
    rows = shard_rows(work, cam_records(work, work.this_part.about["split"]))
    layers = work.run.refine.affinity.layers if _keeps_attention(work.run, cam_model.clip.patch) else 0
    kept, attention = [], []
    for batch in track(batches(read_ahead(rows, Record.read), work.run.cams.batch_size), len):
        encoded = cam_model.encode(cam_model.prepare([image for _, image in batch]), layers, whole=False)
        cams = cam_model.cams(encoded).float().cpu().numpy()
        kept += [cam[list(row.classes)] for (row, _), cam in zip(batch, cams, strict=True)]
        if layers:
            attention.extend(cam_model.attention(encoded.path, work.run.refine).half().cpu().numpy())
    write_cams(work.folder, [row.id for row in rows], [row.classes for row in rows], kept, attention)
    return {"images": len(rows)}


def _keeps_attention(run: RunSpec, patch: int) -> bool:
    """It grows with the square of the number of patches."""
    return run.shards.keep_attention and run.refine.affinity.enabled and (run.cams.image_size // patch) ** 2 <= MOST_PATCHES


def join_cam_parts(work: Work) -> dict[str, Any]:
    """All shards in one cams.zarr."""
    for name, part in work.parts.items():
        link_tree(part.folder / "cams.zarr", work.folder / "cams.zarr" / name)
    images = join_cams(work.folder, {name: part.folder for name, part in work.parts.items()})
    files = [path for path in (work.folder / "cams.zarr").rglob("*") if path.is_file()]
    attention = sum(path.stat().st_size for path in files if "attention" in path.relative_to(work.folder).parts)
    cams = sum(path.stat().st_size for path in files) - attention
    return {"images": images} | {
        name: size / max(1, images) for name, size in {"bytes_an_image": cams, "attention_bytes_an_image": attention}.items()
    }


def _spec(run: RunSpec) -> dict[str, Any]:
    spec = {"cams": run.cams.model_dump(mode="json"), "shards": {"keep_attention": run.shards.keep_attention}}
    if run.shards.keep_attention:
        spec["refine"] = {"affinity": run.refine.affinity.model_dump(mode="json", include={"enabled", "layers", "scale"})}
    return spec


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
