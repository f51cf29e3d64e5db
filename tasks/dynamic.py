"""Stage `dynamic`: CAMs of train and seed splits with the learnt relation (LVC), and refined label maps, a shard a part."""

from typing import Any

import torch

from excel_core.cams.seeds import learnt_cams
from excel_core.cams.pseudo_labels import refine_maps, step_names
from excel_core.config import RunSpec
from excel_core.stores import write_cams
from tasks.cams import join_cam_parts
from tasks.engine.background_pool import BackgroundPool, read_ahead
from tasks.engine.progress import track
from tasks.engine.stage import Part, Stage, Work
from tasks.inputs.cam_model import load_cam_model, model_key
from tasks.inputs.records import Record, batches, cam_image_parts, cam_records, shard_rows
from tasks.refine import join_label_parts, label_lists, save_labels
from tasks.train import trained_segmenter

__all__ = ["STAGE"]


def dynamic_parts(work: Work) -> list[Part]:
    """A part depends on its images, the texts, and the trained segmenter."""
    key = {"spec": _spec(work.run), "sight": model_key(work), "train": work.inputs["train"].content}
    return cam_image_parts(work, lambda shard, rows: key)


@torch.inference_mode()
def build_dynamic_part(work: Work) -> dict[str, Any]:
    """As `cams` and `refine`, with each image's relation added to the attention and multiplied onto the affinity."""
    cam_model, spec = load_cam_model(work), work.run.refine
    segmenter = trained_segmenter(work, cam_model)
    rows = shard_rows(work, cam_records(work, work.this_part.about["split"]))
    kept = []

    with BackgroundPool(cam_model.clip.device) as side:
        for batch in batches(read_ahead(rows, Record.read), work.run.cams.batch_size):
            images = cam_model.prepare([image for _, image in batch])
            seeds = learnt_cams(cam_model, segmenter, images, spec, work.run.dynamic.mirror)
            for i, (row, image) in track(list(enumerate(batch))):
                own = seeds.cams[i, list(row.classes)]
                kept.append(own.cpu().numpy())
                maps = refine_maps(image, images[i], own, seeds.attention[i], spec)
                side.call(save_labels, work, row.id, image, row.classes, maps)
            side.drain()
    write_cams(work.folder, [row.id for row in rows], [row.classes for row in rows], kept)
    return {"images": len(rows), "steps": step_names(spec)}


def join_dynamic_parts(work: Work) -> dict[str, Any]:
    """CAMs and label maps of all shards."""
    return join_label_parts(work) | join_cam_parts(work)


def _spec(run: RunSpec) -> dict[str, Any]:
    return {
        "cams": run.cams.model_dump(mode="json"),
        "refine": run.refine.model_dump(mode="json"),
        "segmenter": run.train.segmenter.model_dump(mode="json"),
        "dynamic": run.dynamic.model_dump(mode="json"),
    }


STAGE = Stage(
    "dynamic",
    ("dataset", "knowledge", "train"),
    _spec,
    join_dynamic_parts,
    parts=dynamic_parts,
    build_part=build_dynamic_part,
    takes=label_lists,
    reads_data=True,
    on_device=True,
)
