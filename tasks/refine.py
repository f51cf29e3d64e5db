"""Stage `refine`: static CAMs → affinity → PAR → CRF → pseudo labels as palette PNGs in VOC layout.

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
from tasks.fingerprint import clip_fingerprint
from tasks.progress import track
from tasks.stage import Stage, Work
from tasks.vision import batches, load_vision, records

__all__ = ["PSEUDO_LABELS", "STAGE", "save_steps", "step_folder", "write_split"]

PSEUDO_LABELS = "SegmentationClassPseudo"


@torch.inference_mode()
def build_refine(work: Work) -> dict[str, Any]:
    """Read each image's CAMs, encode it again for its attention, refine, write."""
    vision, spec = load_vision(work), work.run.refine
    rows = records(work, work.run.dataset.train_split)
    reader = CamReader(work.input("cams"))
    steps: list[str] = []
    size = work.run.cams.batch_size
    for batch in track(batches(rows, size), "refine", -(-len(rows) // size)):
        images = [row.read() for row in batch]
        attention = vision.attention(vision.encode_original(vision.prepare(images), spec.affinity.layers), spec)
        for i, row in enumerate(batch):
            classes, cams = reader.read(row.id)
            labels = refine_labels(images[i], classes, torch.from_numpy(cams).to(attention), attention[i], spec)
            steps = list(labels)
            save_steps(work.folder, row.id, labels)
    write_split(work.folder, work.run.dataset.train_split, (row.id for row in rows))
    return {"images": len(rows), "steps": steps}


def save_steps(folder: Path, image: str, labels: dict[str, NDArray[np.uint8]]) -> None:
    """Write one image's label maps (H, W), the last step as the pseudo label."""
    for step, values in labels.items():
        save_labels_png(folder / step_folder(step, list(labels)) / f"{image}.png", values)


def step_folder(step: str, steps: list[str]) -> Path:
    """Where a step's PNGs are, relative to the output folder."""
    return Path(PSEUDO_LABELS) if step == steps[-1] else Path("steps") / step


def write_split(folder: Path, split: str, ids: Iterable[str]) -> None:
    """The split's list file, as VOC has it."""
    path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{image}\n" for image in ids))


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.refine.model_dump(mode="json") | {"cams": run.cams.model_dump(mode="json"), "split": run.dataset.train_split}


STAGE = Stage("refine", ("dataset", "knowledge", "cams"), _spec, build_refine, outside=clip_fingerprint)
