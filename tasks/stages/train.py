"""Stage `train`: neck and head with LVC → segmenter.safetensors and losses.csv.

`kept/<iteration>.safetensors` are the segmenters that `train.keep_every` asks for. A killed training goes on to the same bytes
(train_resume.py). The run's own static labels before the CRF choose crops. Masks are opened, and trained on, with
`train.supervision=masks` alone. With `train.from_checkpoint` nothing is trained: the output is the checkpoint's segmenter,
without losses.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from excel_core.config import RunSpec
from excel_core.datasets.masks import TrueMask, require_masks, require_segmentations
from excel_core.distributed import process_group, wait_for_all
from excel_core.evaluation.protocols import FULLY_SUPERVISED
from excel_core.models.checkpoints import save_segmenter, segmenter_bytes
from excel_core.training.loop import FETCH_EVERY, LossRow, train
from excel_core.training.samples import LabelFile, LabelMap, TrainingImage
from tasks.engine.fingerprint import clip_fingerprint, digest_of, dino_fingerprint
from tasks.engine.losses import tell_losses
from tasks.engine.output import StageResult, read_marker, resume_folder
from tasks.engine.progress import Counter, say
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.given_segmenter import given_segmenter, segmenter_file
from tasks.inputs.images import ImageRecord, images_key, images_of
from tasks.inputs.masks import mask_reader_of, masks_key
from tasks.inputs.models import architecture, classes_of, load_cam_model, model_key
from tasks.processes.launch import launch_training
from tasks.stages.refine import labels_before_crf
from tasks.stages.train_resume import CHECKPOINT, copy_kept, drop_damaged, keep_segmenter

__all__ = [
    "TRAINED_STAGES",
    "TrainResult",
    "TrainingProgress",
    "input_key",
    "outside",
    "pseudo_labels_for_crops",
    "reads_pseudo_labels",
    "settings",
    "train_here",
    "train_segmenter",
]

TRAINED_STAGES = ("train", "dynamic", "predict")  # of a run that trains a segmenter
# Hears of every iteration that is done, with the losses that were fetched since it last heard.
TrainingProgress = Callable[[int, Sequence[LossRow]], None]


class TrainResult(StageResult):
    """Of a training: iterations, mean loss of the last tenth, and its supervision where that is not image-level labels. Of a
    checkpoint: its file, its digest, and what the run computes otherwise than the code that trained it."""

    iterations: int | None = None
    final_loss: float | None = None
    supervision: str | None = None
    checkpoint: str | None = None
    sha256: str = ""
    differs: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where the segmenter comes from, in words; "" where it was trained."""
        if self.checkpoint is None:
            return ""
        differences = f"; trained otherwise: {', '.join(self.differs)}" if self.differs else ""
        return f"checkpoint {self.checkpoint} (SHA-256 {self.sha256[:16]}){differences}"


def train_segmenter(job: Job, folder: Path) -> TrainResult:
    """Train, in this process or in several, or go on from the folder's checkpoint."""
    if job.run.train.from_checkpoint is not None:
        return _take_checkpoint(job, folder)
    spec = job.run.train
    with Counter(job.name, spec.iterations) as counter:
        train_anywhere = train_here if job.environment.processes == 1 else launch_training

        def tell(done: int, rows: Sequence[LossRow]) -> None:
            if newest := rows[-FETCH_EVERY:]:
                counter.remark = f"loss {sum(row.loss for row in newest) / len(newest):.4f}"
            tell_losses(job.name, rows)
            counter.to(done)

        train_anywhere(job, folder, tell)
    losses = pd.read_csv(folder / "losses.csv")
    last_tenth = losses.tail(max(1, len(losses) // 10))
    return TrainResult(
        iterations=spec.iterations,
        final_loss=float(last_tenth["loss"].mean()),
        supervision=FULLY_SUPERVISED if spec.supervision == "masks" else None,
    )


def _take_checkpoint(job: Job, folder: Path) -> TrainResult:
    """The checkpoint's segmenter in this project's format, and a table of losses without a row."""
    cam_model = load_cam_model(job)
    segmenter, differences = given_segmenter(job.run, len(classes_of(job)), cam_model.clip)
    for difference in differences:
        say(f"train: the checkpoint was trained otherwise: {difference}")
    save_segmenter(folder / "segmenter.safetensors", architecture(job, cam_model), segmenter)
    pd.DataFrame(columns=LossRow.columns(job.run.train)).to_csv(folder / "losses.csv", index=False)
    file, digest = (segmenter_file(job.run) or [":"])[0].rsplit(":", 1)
    return TrainResult(checkpoint=file, sha256=digest, differs=tuple(differences))


def train_here(job: Job, folder: Path, progress: TrainingProgress) -> None:
    """Train in this process, alone or as one of a process group. Its first process writes segmenter.safetensors, losses.csv,
    kept/ and checkpoints."""
    cam_model = load_cam_model(job)
    shape, resume = architecture(job, cam_model), resume_folder(folder)
    is_first = process_group().rank == 0
    if is_first:
        drop_damaged(resume, shape, job.run.train.keep_every)
    wait_for_all()  # all of them go on from the same checkpoint, or from none
    fetched: list[LossRow] = []

    def tell(done: int) -> None:
        progress(done, tuple(fetched))
        fetched.clear()

    segmenter, losses = train(
        cam_model,
        _training_images(job),
        job.run.train,
        job.run.refine,
        shape,
        resume / CHECKPOINT,
        tell,
        lambda iteration, network: keep_segmenter(resume, iteration, segmenter_bytes(shape, network)),
        fetched.extend,
    )
    if is_first:
        save_segmenter(folder / "segmenter.safetensors", shape, segmenter)
        columns = LossRow.columns(job.run.train)
        pd.DataFrame([vars(row) for row in losses]).to_csv(folder / "losses.csv", columns=columns, index=False)
        copy_kept(resume, folder, job.run.train.iterations, job.run.train.keep_every)


def _training_images(job: Job) -> list[TrainingImage]:
    """The training split, with static labels before the CRF where they choose crops, or masks where they are targets."""
    split = job.run.dataset.train_split
    images = images_of(job, split)
    label_map_of: Callable[[ImageRecord], LabelMap | None] = lambda image: None  # noqa: E731
    if job.run.train.supervision == "masks":
        masks = mask_reader_of(job, split)
        require_segmentations(masks, split, [image.id for image in images])
        label_map_of = lambda image: TrueMask(masks, image.id, image.height, image.width)  # noqa: E731
    elif reads_pseudo_labels(job.run):
        labels = labels_before_crf(job.inputs["refine"])
        label_map_of = lambda image: LabelFile(labels / f"{image.id}.png")  # noqa: E731
    return [TrainingImage(image.path, image.classes, image.decode, label_map_of(image)) for image in images]


def reads_pseudo_labels(run: RunSpec) -> bool:
    """Whether static pseudo labels choose the training's crops."""
    spec = run.train
    return spec.crop_rule == "pseudo" and spec.supervision == "labels" and spec.from_checkpoint is None


def pseudo_labels_for_crops(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """Training looks at pseudo labels where these choose its crops."""
    return {"refine": Dependency("refine", run)} if reads_pseudo_labels(run) else {}


def input_key(job: Job) -> dict[str, Any]:
    """The images to train on, the texts and the CLIP, and the labels that choose crops or are targets; not the images of other
    splits, nor pseudo labels after the CRF. With a checkpoint, what it must fit."""
    if job.run.train.from_checkpoint is not None:
        return {"clip": clip_fingerprint(job.run.clip.model), "classes": list(classes_of(job))}
    split = job.run.dataset.train_split
    images = images_of(job, split)
    key: dict[str, Any] = {"rows": images_key(images), "model": model_key(job)}
    if job.run.dino.model is not None:
        key["dino"] = dino_fingerprint(job.run.dino.model)
    if job.run.train.supervision == "masks":
        require_masks(mask_reader_of(job, split), split, [image.id for image in images])
        key["masks"] = masks_key(job, split, images)
    elif reads_pseudo_labels(job.run):
        output = job.inputs["refine"]
        place = labels_before_crf(output).relative_to(output.folder).as_posix()
        files = read_marker(output.folder).files
        key["labels"] = digest_of([[image.id, files[f"{place}/{image.id}.png"][-1]] for image in images])
    return key


def settings(run: RunSpec) -> dict[str, Any]:
    """What is trained, and how CAMs and labels are made on the way; of a checkpoint, what it must fit."""
    if run.train.from_checkpoint is not None:  # its bytes are in the key: `outside`
        return {
            "from_checkpoint": Path(run.train.from_checkpoint).name,
            "segmenter": run.train.segmenter.model_dump(mode="json"),
            "cams": run.cams.model_dump(mode="json", include={"normalisation", "calibration"}),
        }
    return {
        "train": run.train.model_dump(mode="json", exclude={"workers", "checkpoint_every", "cuda_graph"}),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size", "precision"}),
        "refine": run.refine.model_dump(mode="json", exclude={"crf", "votes"}),
    }


def outside(run: RunSpec, environment: RunEnvironment) -> list[str] | None:
    """The checkpoint that is taken instead of training."""
    return segmenter_file(run)
