"""Stage `train`: neck and head with LVC → segmenter.safetensors, losses.csv and the loss curve. Resumes.

`kept/<iteration>.safetensors` are the segmenters that `train.keep_every` asks for. The run's own static labels before the CRF
choose crops. Masks are opened, and trained on, with `train.supervision=masks` alone. With `train.from_checkpoint` nothing is
trained: the output is the checkpoint's segmenter, without losses.
"""

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from artifacts.charts import draw_losses
from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.datasets.masks import TrueMask, require_masks
from excel_core.distributed import process_group, wait_for_all
from excel_core.errors import StoreError
from excel_core.evaluation.protocols import FULLY_SUPERVISED
from excel_core.models.checkpoints import Architecture, load_checkpoint, load_segmenter, save_segmenter
from excel_core.training.loop import LossRow, train
from excel_core.training.samples import LabelFile, LabelMap, TrainingImage
from tasks.engine.fingerprint import clip_fingerprint
from tasks.engine.identity import digest_of
from tasks.engine.outputs import read_marker
from tasks.engine.progress import Counter, say
from tasks.engine.stage import Dependency, RunEnvironment, Stage, Work
from tasks.inputs.cam_model import classes_of, load_cam_model, model_key
from tasks.inputs.given_segmenter import given_by, given_segmenter
from tasks.inputs.masks import mask_reader_of, masks_key
from tasks.inputs.records import records, rows_key
from tasks.process_group import launch_training
from tasks.refine import labels_before_crf

__all__ = ["STAGE", "architecture", "kept_segmenters", "looks_at_pseudo_labels", "train_here", "trained_segmenter"]

KEPT = "kept"


def build_train(work: Work) -> dict[str, Any]:
    """Train, in this process or in several, or go on from the folder's checkpoint; then draw the losses."""
    if work.run.train.from_checkpoint is not None:
        return _take_checkpoint(work)
    spec, folder = work.run.train, work.folder
    with Counter(work.name, spec.iterations) as counter:
        train_anywhere = train_here if work.place.processes == 1 else launch_training
        train_anywhere(work, counter.to)
    losses = pd.read_csv(folder / "losses.csv")
    draw_losses(folder / "losses.png", losses)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    tail = losses.tail(max(1, len(losses) // 10))
    summary = {"iterations": spec.iterations, "final_loss": float(tail["loss"].mean())}
    return summary | ({"supervision": FULLY_SUPERVISED} if spec.supervision == "masks" else {})


def _take_checkpoint(work: Work) -> dict[str, Any]:
    """The checkpoint's segmenter in this project's format, and a table of losses without a row."""
    cam_model = load_cam_model(work)
    segmenter, differs = given_segmenter(work.run, len(classes_of(work)), cam_model.clip)
    for words in differs:
        say(f"train: the checkpoint was trained otherwise: {words}")
    save_segmenter(work.folder / "segmenter.safetensors", architecture(work, cam_model), segmenter)
    pd.DataFrame(columns=[field.name for field in fields(LossRow)]).to_csv(work.folder / "losses.csv", index=False)
    name, digest = (given_by(work.run) or [""])[0].rsplit(":", 1)
    return {"checkpoint": name, "sha256": digest, "differs": differs}


def train_here(work: Work, show: Callable[[int], None]) -> None:
    """Train in this process, alone or as one of a team, whose first process writes: segmenter.safetensors, losses.csv and
    checkpoints. `show` hears of every iteration that is done."""
    cam_model = load_cam_model(work)
    cam_model = replace(
        cam_model, spec=cam_model.spec.model_copy(update={"precision": "fp32"})
    )  # training's own is train.precision
    images = _training_images(work)
    shape, checkpoint = architecture(work, cam_model), work.folder / "checkpoint.pt"
    first = process_group().rank == 0
    if first:
        _drop_damaged(checkpoint, shape)
    wait_for_all()  # all of them go on from the same checkpoint, or from none
    kept = work.folder / KEPT
    segmenter, rows = train(
        cam_model,
        images,
        work.run.train,
        work.run.refine,
        shape,
        checkpoint,
        show,
        lambda iteration, network: save_segmenter(kept / f"{iteration:06d}.safetensors", shape, network),
    )
    if first:
        save_segmenter(work.folder / "segmenter.safetensors", shape, segmenter)
        pd.DataFrame([vars(row) for row in rows]).to_csv(work.folder / "losses.csv", index=False)


def _training_images(work: Work) -> list[TrainingImage]:
    """The training split, with static labels before the CRF where they choose crops, or masks where they are targets."""
    split, spec = work.run.dataset.train_split, work.run.train
    rows = records(work, split)
    labels: list[LabelMap | None] = [None] * len(rows)
    if spec.supervision == "masks":
        truth = mask_reader_of(work, split)
        labels = [TrueMask(truth, row.id, row.height, row.width) for row in rows]
    elif looks_at_pseudo_labels(work.run):
        folder = labels_before_crf(work.inputs["refine"])
        labels = [LabelFile(folder / f"{row.id}.png") for row in rows]
    return [TrainingImage(row.path, row.classes, row.view, label_map) for row, label_map in zip(rows, labels, strict=True)]


def looks_at_pseudo_labels(run: RunSpec) -> bool:
    """Whether static pseudo labels choose the training's crops."""
    train = run.train
    return train.crop_rule == "pseudo" and train.supervision == "labels" and train.from_checkpoint is None


def kept_segmenters(folder: Path, iterations: int) -> dict[int, Path]:
    """Files of the segmenters that a train stage's folder keeps, by the number of iterations done; the trained one is the
    last, whether `train.keep_every` asked for it or not."""
    kept = {int(path.stem): path for path in sorted((folder / KEPT).glob("*.safetensors"))}
    return kept | {iterations: folder / "segmenter.safetensors"}


def _drop_damaged(checkpoint: Path, shape: Architecture) -> None:
    """A checkpoint that cannot be read must not end every run to come: training starts again, and says so."""
    if checkpoint.exists():
        try:
            load_checkpoint(checkpoint, shape)
        except StoreError as error:
            checkpoint.unlink()
            print(f"train: the checkpoint is damaged, training starts again ({error})", file=sys.stderr, flush=True)


def architecture(work: Work, cam_model: CamModel) -> Architecture:
    """The architecture that this run trains."""
    clip = cam_model.clip
    return Architecture(work.run.clip.model, len(clip.blocks), clip.width, classes_of(work), work.run.train.segmenter)


def trained_segmenter(work: Work, cam_model: CamModel) -> Any:
    """The train stage's segmenter on the run's device, in evaluation mode."""
    path = work.input("train") / "segmenter.safetensors"
    return load_segmenter(path, architecture(work, cam_model)).to(cam_model.clip.device)


def _takes(work: Work) -> dict[str, Any]:
    """The images to train on, the texts and the CLIP, and the labels that choose crops or are targets; not the images of other
    splits, nor pseudo labels after the CRF. With a checkpoint, what it must fit."""
    if work.run.train.from_checkpoint is not None:
        return {"clip": clip_fingerprint(work.run, work.place), "classes": list(classes_of(work))}
    split = work.run.dataset.train_split
    rows = records(work, split)
    inputs: dict[str, Any] = {"rows": rows_key(rows), "sight": model_key(work)}
    if work.run.train.supervision == "masks":
        require_masks(mask_reader_of(work, split), split, [row.id for row in rows])
        inputs["masks"] = masks_key(work, split, rows)
    elif looks_at_pseudo_labels(work.run):
        output = work.inputs["refine"]
        place = labels_before_crf(output).relative_to(output.folder).as_posix()
        files = read_marker(output.folder)["files"]
        inputs["labels"] = digest_of([[row.id, files[f"{place}/{row.id}.png"][-1]] for row in rows])
    return inputs


def _needs(run: RunSpec, place: RunEnvironment) -> dict[str, Dependency]:
    return {"refine": Dependency("refine", run)} if looks_at_pseudo_labels(run) else {}


def sees_masks(run: RunSpec) -> bool:
    """The fully supervised mode, and no other."""
    return run.train.supervision == "masks"


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
    needs=_needs,
    takes=_takes,
    sees_masks=sees_masks,
    outside=lambda run, place: given_by(run),
    reads_data=True,
    resumable=True,
    on_device=True,
)
