"""Stage `refine`: static CAMs → affinity → PAR → CRF → pseudo labels as palette PNGs in VOC layout, a shard a part.

`SegmentationClassPseudo/` holds the last enabled step, `steps/<step>/` the ones before it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from excel_core.config import RunSpec
from excel_core.palette import save_labels_png
from excel_core.seeds import refine_labels
from excel_core.stores import CamReader
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.outputs import link_tree
from tasks.engine.progress import track
from tasks.engine.stage import Part, Stage, Work
from tasks.inputs.records import batches, image_parts, records, shard_rows
from tasks.inputs.vision import load_vision

__all__ = ["PSEUDO_LABELS", "STAGE", "join_label_parts", "save_steps", "step_folder"]

PSEUDO_LABELS = "SegmentationClassPseudo"


def refine_parts(work: Work) -> list[Part]:
    """A part depends on its images, the CAMs of the same shard, and the CLIP's attention."""
    spec, clip = _spec(work.run), clip_fingerprint(work.run, work.place)
    cams, split = work.inputs["cams"].parts, work.run.dataset.train_split
    return image_parts(work, split, records(work, split), lambda shard, rows: {"spec": spec, "clip": clip, "cams": cams[shard]})


@torch.inference_mode()
def build_refine_part(work: Work) -> dict[str, Any]:
    """Read each image's CAMs, encode it again for its attention, refine, write."""
    vision, spec = load_vision(work), work.run.refine
    rows = shard_rows(work, records(work, work.run.dataset.train_split))
    reader = CamReader(work.input("cams"))
    steps: list[str] = []
    for batch in batches(rows, work.run.cams.batch_size):
        images = [row.read() for row in batch]
        attention = vision.attention(vision.encode_original(vision.prepare(images), spec.affinity.layers), spec)
        for i, row in track(list(enumerate(batch))):
            classes, cams = reader.read(row.id)
            labels = refine_labels(images[i], classes, torch.from_numpy(cams).to(attention), attention[i], spec)
            steps = list(labels)
            save_steps(work.folder, row.id, labels)
    return {"images": len(rows), "steps": steps}


def join_label_parts(work: Work) -> dict[str, Any]:
    """All shards' label maps in one folder, with the split's list file as VOC has it."""
    for part in work.parts.values():
        for folder in (PSEUDO_LABELS, "steps"):
            if (part.folder / folder).is_dir():
                link_tree(part.folder / folder, work.folder / folder)
    split = work.run.dataset.train_split
    rows = records(work, split)
    _write_split(work.folder, split, (row.id for row in rows))
    return {"images": len(rows), "steps": next((part.summary["steps"] for part in work.parts.values()), [])}


def save_steps(folder: Path, image: str, labels: dict[str, NDArray[np.uint8]]) -> None:
    """Write one image's label maps (H, W), the last step as the pseudo label."""
    for step, values in labels.items():
        save_labels_png(folder / step_folder(step, list(labels)) / f"{image}.png", values)


def step_folder(step: str, steps: list[str]) -> Path:
    """Where a step's PNGs are, relative to the output folder."""
    return Path(PSEUDO_LABELS) if step == steps[-1] else Path("steps") / step


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
    takes=lambda work: {},
    reads_data=True,
    on_device=True,
)
