"""Train neck and head with learnable visual calibration, on pseudo labels made in each step (method 5).

Samples, augmentations and dropout of iteration t follow from (seed, t) alone. So a run that resumes at a checkpoint computes
the very same losses as one without interruption. A process group shares out the same samples, and gets the same losses and
weights but for the last bits (distributed.py).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from excel_core.cams.cam_model import CamModel
from excel_core.config import RefineSpec, TrainSpec
from excel_core.distributed import process_group
from excel_core.errors import StoreError, TrainingError
from excel_core.models.checkpoints import Architecture, is_finite, load_checkpoint, save_checkpoint
from excel_core.models.segmenter import Segmenter
from excel_core.training.batches import Batch, Batches
from excel_core.training.captured import CapturedSteps
from excel_core.training.loading import loaded, worker_faults_named
from excel_core.training.optimiser import learning_rate, load_optimiser, make_optimiser, stored_optimiser
from excel_core.training.samples import TrainingExample
from excel_core.training.step import training_step

__all__ = ["FETCH_EVERY", "LossCallback", "LossRow", "SnapshotCallback", "train"]

SnapshotCallback = Callable[[int, Segmenter], None]  # number of iterations done, the segmenter after them
FETCH_EVERY = 50  # iterations whose losses are fetched together: each fetch waits for the device


@dataclass(frozen=True)
class LossRow:
    """One iteration's losses: total, L_seg, L_div (eqs. 11-13), and its learning rate; of WeCLIP+ also dice, and L_seg of each
    encoder by the labels of the other."""

    iteration: int
    loss: float
    segmentation: float
    diversity: float
    learning_rate: float
    dice: float = 0.0
    first_by_second: float = 0.0
    second_by_first: float = 0.0

    @staticmethod
    def columns(spec: TrainSpec) -> list[str]:
        """Fields that a training under `spec` has."""
        names = [field.name for field in fields(LossRow)]
        absent = [] if spec.dice_weight else ["dice"]
        absent += [] if spec.mutual_weight else ["first_by_second", "second_by_first"]
        return [name for name in names if name not in absent]


LossCallback = Callable[[Sequence[LossRow]], None]


@worker_faults_named()
def train(
    cam_model: CamModel,
    images: Sequence[TrainingExample],
    spec: TrainSpec,
    refine: RefineSpec,
    architecture: Architecture,
    checkpoint: Path,
    progress: Callable[[int], None] = lambda done: None,
    on_snapshot: SnapshotCallback | None = None,
    on_losses: LossCallback = lambda rows: None,
) -> tuple[Segmenter, list[LossRow]]:
    """Train on `images`; returns the segmenter in evaluation mode and one LossRow per iteration.

    Every rank of a process group calls this with the same arguments, but for the device, and gets the same result. Gradients
    reach neck and head only.

    Arguments:
        checkpoint: file to resume from, if it exists, and that rank 0 writes every `spec.checkpoint_every` iterations and after
            the last. The one before it stays beside it.
        progress: called with the number of iterations that were begun. A GPU may be some steps behind: nothing waits for it but
            checkpoints and every 50th step.
        on_snapshot: called on rank 0 with the segmenter every `spec.keep_every` iterations.
        on_losses: called with the rows of the iterations since it was last called, as often as losses are fetched; at first
            with those of the checkpoint, where there is one.

    StoreError without images, and for a checkpoint that is damaged or of another architecture; SettingError for a batch that
    the ranks cannot share; WorkerError for workers that die; TrainingError at a loss or weight that is not finite: nothing is
    saved from there on.
    """
    if not images:
        raise StoreError("no usable training image; see the manifest's errors, then rerun dataset")
    device, group = cam_model.clip.device, process_group()
    batches = Batches(images, spec, group.share(spec.batch_size))
    with _seeded(spec.seed, 0):
        segmenter = architecture.build().to(device).train()
    state = _TrainingState(segmenter, make_optimiser(segmenter, spec), spec, architecture, checkpoint)
    state.resume()
    if state.rows:
        on_losses(tuple(state.rows))
    step = _step(cam_model, segmenter, state.optimiser, spec, refine)
    for iteration, batch in loaded(batches, state.saved, device):
        with _seeded(spec.seed, iteration + 1):
            state.pending.append(step(batch, iteration))
        done = iteration + 1
        keep = spec.keep_every is not None and done % spec.keep_every == 0
        save = done % spec.checkpoint_every == 0 or done == spec.iterations
        if save or keep or len(state.pending) == FETCH_EVERY:
            on_losses(state.fetch_losses())
        if save or keep:
            state.require_finite_weights()
        # Before the checkpoint: a run that is killed between the two resumes earlier and takes the snapshot again.
        if keep and on_snapshot is not None and group.rank == 0:
            on_snapshot(done, segmenter)
        if save:
            state.save(write=group.rank == 0)
        progress(done)
    return segmenter.eval(), state.rows


def _step(
    cam_model: CamModel, segmenter: Segmenter, optimiser: torch.optim.Optimizer, spec: TrainSpec, refine: RefineSpec
) -> Callable[[Batch, int], Tensor]:
    """A function that takes one optimiser step on (this process' share of a batch, iteration) → losses (6,) of `StepResult`, on
    the device. A GPU that trains alone replays recorded steps, unless `spec.cuda_graph` is off."""
    is_alone = process_group().world_size == 1
    if is_alone and cam_model.clip.device.type == "cuda" and spec.cuda_graph:
        return CapturedSteps(cam_model, segmenter, optimiser, spec, refine)
    network = segmenter if is_alone else DistributedDataParallel(segmenter)
    return lambda batch, iteration: training_step(cam_model, network, optimiser, batch, iteration, spec, refine).losses


@dataclass
class _TrainingState:
    """What a checkpoint holds, and the losses of the last iterations, which are still on the device. `saved`: iterations that
    the last checkpoint holds."""

    segmenter: Segmenter
    optimiser: torch.optim.Optimizer
    spec: TrainSpec
    architecture: Architecture
    checkpoint: Path
    saved: int = 0
    rows: list[LossRow] = field(default_factory=list)
    pending: list[Tensor] = field(default_factory=list)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return
        stored = load_checkpoint(self.checkpoint, self.architecture)
        self.segmenter.load_state_dict(stored["segmenter"])
        load_optimiser(self.optimiser, stored["optimiser"])
        self.rows = [LossRow(*row) for row in stored["losses"]]
        self.saved = stored["iteration"]

    def save(self, write: bool) -> None:
        """Write what `resume` needs; every rank of a process group calls this, one writes."""
        self.saved = len(self.rows)
        if write:
            stored = {
                "iteration": self.saved,
                "segmenter": self.segmenter.state_dict(),
                "optimiser": stored_optimiser(self.optimiser),
                "losses": [list(vars(row).values()) for row in self.rows],
            }
            save_checkpoint(self.checkpoint, self.architecture, stored)

    def fetch_losses(self) -> list[LossRow]:
        """Fetch the pending losses (n, 6) from the device → their rows; TrainingError at the first that is not finite."""
        fetched: list[list[float]] = torch.stack(self.pending).tolist()
        self.pending.clear()
        for loss, segmentation, diversity, *others in fetched:
            iteration = len(self.rows)
            if not all(map(math.isfinite, (loss, segmentation, diversity, *others))):
                raise self._not_finite(
                    f"the loss of iteration {iteration + 1} is {loss} (segmentation {segmentation}, diversity {diversity})"
                )
            rate = learning_rate(iteration, self.spec)
            self.rows.append(LossRow(iteration, loss, segmentation, diversity, rate, *others))
        return self.rows[len(self.rows) - len(fetched) :]

    def require_finite_weights(self) -> None:
        """TrainingError where a weight is not finite, before it is saved: the losses show it one iteration later."""
        if not is_finite(self.segmenter.state_dict().values()):
            raise self._not_finite(f"after iteration {len(self.rows)} weights are not finite")

    def _not_finite(self, problem: str) -> TrainingError:
        saved = f"{self.checkpoint}, after {self.saved} iterations" if self.saved else "none yet"
        return TrainingError(
            f"training: {problem}; last good checkpoint: {saved}. Lower train.learning_rate, raise train.warmup or choose "
            "train.precision=fp32: the same settings lead to the same again"
        )


class _seeded:
    """Run a block with torch's generators seeded by (seed, part), and restore the global state after it."""

    def __init__(self, seed: int, part: int) -> None:
        self.value = int(np.random.SeedSequence([seed, 2, part]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        self.fork = torch.random.fork_rng(range(torch.cuda.device_count()))  # all, as manual_seed seeds all

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.value)

    def __exit__(self, *error: Any) -> None:
        self.fork.__exit__(*error)
