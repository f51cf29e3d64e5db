"""Stage `train`: neck and head with LVC → segmenter.safetensors, losses.csv and the loss curve. Resumes. Or, with
train.from_checkpoint, the segmenter that a checkpoint holds, and no losses."""

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from artifacts.charts import draw_losses
from excel_core.checkpoints import Architecture, load_checkpoint, load_segmenter, save_segmenter
from excel_core.config import RunSpec
from excel_core.distributed import team, wait_for_team
from excel_core.errors import StoreError
from excel_core.seeds import Vision
from excel_core.training import LossRow, TrainingImage, train
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.progress import Counter, say
from tasks.engine.stage import Stage, Work
from tasks.inputs.given_segmenter import given_by, given_segmenter
from tasks.inputs.records import records, rows_key
from tasks.inputs.vision import classes_of, load_vision, sight_key
from tasks.team import train_in_team

__all__ = ["STAGE", "architecture", "train_here", "trained_segmenter"]


def build_train(work: Work) -> dict[str, Any]:
    """Train, in this process or in several, or go on from the folder's checkpoint; then draw the losses."""
    if work.run.train.from_checkpoint is not None:
        return _take_checkpoint(work)
    spec, folder = work.run.train, work.folder
    with Counter("train", spec.iterations) as counter:
        train_anywhere = train_here if work.place.processes == 1 else train_in_team
        train_anywhere(work, counter.to)
    losses = pd.read_csv(folder / "losses.csv")
    draw_losses(folder / "losses.png", losses)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    tail = losses.tail(max(1, len(losses) // 10))
    return {"iterations": spec.iterations, "final_loss": float(tail["loss"].mean())}


def _take_checkpoint(work: Work) -> dict[str, Any]:
    """The checkpoint's segmenter in this project's format, and a table of losses without a row."""
    vision = load_vision(work)
    segmenter, differs = given_segmenter(work.run, len(classes_of(work)), vision.clip)
    for words in differs:
        say(f"train: the checkpoint was trained otherwise: {words}")
    save_segmenter(work.folder / "segmenter.safetensors", architecture(work, vision), segmenter)
    pd.DataFrame(columns=[field.name for field in fields(LossRow)]).to_csv(work.folder / "losses.csv", index=False)
    name, digest = (given_by(work.run) or [""])[0].rsplit(":", 1)
    return {"checkpoint": name, "sha256": digest, "differs": differs}


def train_here(work: Work, show: Callable[[int], None]) -> None:
    """Train in this process, alone or as one of a team, whose first process writes: segmenter.safetensors, losses.csv and
    checkpoints. `show` hears of every iteration that is done."""
    vision = load_vision(work)
    vision = replace(vision, spec=vision.spec.model_copy(update={"precision": "fp32"}))  # training's own is train.precision
    images = [TrainingImage(row.path, row.classes, row.view) for row in records(work, work.run.dataset.train_split)]
    shape, checkpoint = architecture(work, vision), work.folder / "checkpoint.pt"
    first = team().rank == 0
    if first:
        _drop_damaged(checkpoint, shape)
    wait_for_team()  # all of them go on from the same checkpoint, or from none
    segmenter, rows = train(vision, images, work.run.train, work.run.refine, shape, checkpoint, show)
    if first:
        save_segmenter(work.folder / "segmenter.safetensors", shape, segmenter)
        pd.DataFrame([vars(row) for row in rows]).to_csv(work.folder / "losses.csv", index=False)


def _drop_damaged(checkpoint: Path, shape: Architecture) -> None:
    """A checkpoint that cannot be read must not end every run to come: training starts again, and says so."""
    if checkpoint.exists():
        try:
            load_checkpoint(checkpoint, shape)
        except StoreError as error:
            checkpoint.unlink()
            print(f"train: the checkpoint is damaged, training starts again ({error})", file=sys.stderr, flush=True)


def architecture(work: Work, vision: Vision) -> Architecture:
    """The architecture that this run trains."""
    clip = vision.clip
    return Architecture(work.run.clip.model, len(clip.blocks), clip.width, classes_of(work), work.run.train.segmenter)


def trained_segmenter(work: Work, vision: Vision) -> Any:
    """The train stage's segmenter on the run's device, in evaluation mode."""
    path = work.input("train") / "segmenter.safetensors"
    return load_segmenter(path, architecture(work, vision)).to(vision.clip.device)


def _takes(work: Work) -> dict[str, Any]:
    """The images to train on, the texts and the CLIP; not the images of other splits. Of a checkpoint, what it must fit."""
    if work.run.train.from_checkpoint is not None:
        return {"clip": clip_fingerprint(work.run, work.place), "classes": list(classes_of(work))}
    return {"rows": rows_key(records(work, work.run.dataset.train_split)), "sight": sight_key(work)}


def _spec(run: RunSpec) -> dict[str, Any]:
    if run.train.from_checkpoint is not None:  # its bytes are the key's: `outside`
        return {
            "from_checkpoint": Path(run.train.from_checkpoint).name,
            "segmenter": run.train.segmenter.model_dump(mode="json"),
            "cams": run.cams.model_dump(mode="json", include={"normalisation", "calibration"}),
        }
    result = {"train": run.train.model_dump(mode="json", exclude={"workers", "checkpoint_every"})}
    return result | {
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size", "precision"}),
        "refine": run.refine.model_dump(mode="json", exclude={"crf"}),
    }


STAGE = Stage(
    "train",
    ("dataset", "knowledge"),
    _spec,
    build_train,
    takes=_takes,
    outside=lambda run, place: given_by(run),
    reads_data=True,
    resumable=True,
    on_device=True,
)
