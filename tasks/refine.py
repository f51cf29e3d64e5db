"""Stage `refine`: static CAMs → affinity → PAR → CRF → pseudo labels as palette PNGs in VOC layout, a shard a part.

`SegmentationClassPseudo/` holds the last enabled step, `steps/<step>/` the ones before it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import label_steps, refine_maps, step_names
from excel_core.config import RefineSpec, RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.stores import CamReader
from tasks.engine.background_pool import BackgroundPool, read_ahead
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.identity import digest_of
from tasks.engine.outputs import StageOutput, link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Part, Stage, Work
from tasks.inputs.cam_model import load_cam_model
from tasks.inputs.records import Record, batches, cam_image_parts, cam_records, records, shard_rows

__all__ = [
    "PSEUDO_LABELS", "STAGE", "join_label_parts", "label_lists", "labels_before_crf", "save_labels", "step_folder",
]  # fmt: skip

PSEUDO_LABELS = "SegmentationClassPseudo"


def refine_parts(work: Work) -> list[Part]:
    """A part depends on its images, the CAMs of the same shard, and the CLIP's attention."""
    spec, clip = _spec(work.run), clip_fingerprint(work.run, work.place)
    cams = work.inputs["cams"].parts
    return cam_image_parts(work, lambda shard, rows: {"spec": spec, "clip": clip, "cams": cams[shard]})


@torch.inference_mode()
def build_refine_part(work: Work) -> dict[str, Any]:
    """Read each image's CAMs and attention, refine, write; where no attention was kept, encode the image again."""
    cam_model, spec = load_cam_model(work), work.run.refine
    rows = shard_rows(work, cam_records(work, work.this_part.about["split"]))
    reader = CamReader(work.input("cams"))

    def read(row: Record) -> _Stored:
        classes, cams = reader.read(row.id)
        return _Stored(row.read(), classes, torch.from_numpy(cams), reader.attention(row.id))

    with BackgroundPool(cam_model.clip.device) as side:
        for batch in batches(read_ahead(rows, read), work.run.cams.batch_size):
            images = cam_model.prepare([stored.image for _, stored in batch])
            attention = _attention(cam_model, images, [stored for _, stored in batch], spec)
            for (row, stored), network_input, image_attention in track(list(zip(batch, images, attention, strict=True))):
                maps = refine_maps(stored.image, network_input, stored.cams.to(image_attention), image_attention, spec)
                side.call(save_labels, work, row.id, stored.image, stored.classes, maps)
            side.drain()
    return {"images": len(rows), "steps": step_names(spec)}


class _Stored(NamedTuple):
    """What the disk holds of an image: its pixels (H, W, 3), its classes, their CAMs (K, h, w), and its attention (M, M)."""

    image: NDArray[np.uint8]
    classes: list[int]
    cams: Tensor
    attention: NDArray[np.float16] | None


def _attention(cam_model: CamModel, images: Tensor, batch: list[_Stored], spec: RefineSpec) -> Tensor:
    """images (B, 3, S, S) network input → (B, M, M) float32, on the device."""
    kept = [stored.attention for stored in batch if stored.attention is not None]
    if len(kept) == len(batch):
        return torch.from_numpy(np.stack(kept)).to(cam_model.clip.device).float()
    return cam_model.attention(cam_model.encode_for_attention(images, spec.affinity.layers), spec)


def join_label_parts(work: Work) -> dict[str, Any]:
    """All shards' label maps in one folder, with the list file of each train and seed split as VOC has it."""
    for part in work.parts.values():
        for folder in (PSEUDO_LABELS, "steps"):
            if (part.folder / folder).is_dir():
                link_tree(part.folder / folder, work.folder / folder)
    for split, ids in _lists(work).items():
        _write_split(work.folder, split, ids)
    images = sum(part.summary["images"] for part in work.parts.values())
    return {"images": images, "steps": next((part.summary["steps"] for part in work.parts.values()), [])}


def label_lists(work: Work) -> dict[str, str]:
    """What the list files depend on. Parts do not tell: an image of several splits is in a part of the first alone."""
    return {"lists": digest_of(_lists(work))}


def _lists(work: Work) -> dict[str, list[str]]:
    """Ids of each train and seed split."""
    return {split: [row.id for row in records(work, split)] for split in work.run.dataset.cam_splits}


def save_labels(work: Work, image: str, pixels: NDArray[np.uint8], classes: Sequence[int], maps: dict[str, Tensor]) -> None:
    """Finish one image's maps and write its label maps (H, W), the last step as the pseudo label."""
    for step, values in label_steps(pixels, classes, maps, work.run.refine).items():
        save_labels_png(work.folder / step_folder(step, step_names(work.run.refine)) / f"{image}.png", values)


def step_folder(step: str, steps: list[str]) -> Path:
    """Where a step's PNGs are, relative to the output folder."""
    return Path(PSEUDO_LABELS) if step == steps[-1] else Path("steps") / step


def labels_before_crf(output: StageOutput) -> Path:
    """The folder of the last step's label maps before the CRF: training's own static labels have none."""
    steps: list[str] = output.summary["steps"]
    return output.folder / step_folder([step for step in steps if step != "crf"][-1], steps)


def _write_split(folder: Path, split: str, ids: Iterable[str]) -> None:
    path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image}\n" for image in ids))


def _spec(run: RunSpec) -> dict[str, Any]:
    return {"refine": run.refine.model_dump(mode="json"), "cams": run.cams.model_dump(mode="json")}


STAGE = Stage(
    "refine",
    ("dataset", "knowledge", "cams"),
    _spec,
    join_label_parts,
    parts=refine_parts,
    build_part=build_refine_part,
    takes=label_lists,
    reads_data=True,
    on_device=True,
)
