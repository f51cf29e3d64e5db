"""Train neck and head with learnable visual calibration on pseudo labels made on the way (method 5).

Nothing here is hidden state: the samples, augmentations and dropout of iteration t follow from (seed, t) alone, so a run
that resumes at a checkpoint computes the very same losses as one that was never interrupted. A team of processes takes
the same samples, shared out, to the same losses and weights but for the last bits (distributed.py).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

from excel_core.calibration import relation_of
from excel_core.checkpoints import Architecture, load_checkpoint, save_checkpoint
from excel_core.clip import normalise_pixels
from excel_core.config import RefineSpec, TrainSpec
from excel_core.datasets.images import AS_STORED, View
from excel_core.distributed import team
from excel_core.errors import StoreError
from excel_core.losses import IGNORE, diversity_loss, pair_labels, segmentation_loss
from excel_core.seeds import Vision, refine_batch
from excel_core.segmenter import Segmentation, Segmenter

__all__ = ["LossRow", "Sample", "TrainingImage", "augment", "learning_rate", "train", "training_step"]

LOOK_EVERY = 50  # iterations whose losses are fetched from the device together


@dataclass(frozen=True)
class TrainingImage:
    """A training image: its file, the indices of its image-level classes, and how its pixels are seen. No mask, ever."""

    path: Path
    classes: tuple[int, ...]
    view: View = AS_STORED


@dataclass(frozen=True)
class Sample:
    """A crop: pixels (3, crop, crop) uint8 RGB, valid (crop, crop) bool where it is not padding, its classes."""

    pixels: Tensor
    valid: Tensor
    classes: tuple[int, ...]

    def pin_memory(self) -> "Sample":
        """The same in page-locked memory, as DataLoader asks for it: copied to a GPU while that computes."""
        return Sample(self.pixels.pin_memory(), self.valid.pin_memory(), self.classes)


@dataclass(frozen=True)
class LossRow:
    """One iteration's losses: total, L_seg, L_div (eqs. 11-13), and its learning rate."""

    iteration: int
    loss: float
    segmentation: float
    diversity: float
    learning_rate: float


def learning_rate(iteration: int, spec: TrainSpec) -> float:
    """Linear warm-up from 1e-6 of the rate, then polynomial decay (1 - t/T)^power."""
    if iteration < spec.warmup:
        return spec.learning_rate * (1 - (1 - iteration / spec.warmup) * (1 - 1e-6))
    return spec.learning_rate * (1 - iteration / spec.iterations) ** spec.power  # type: ignore[no-any-return]


def augment(image: NDArray[np.uint8], spec: TrainSpec, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """image (H, W, 3) → pixels (3, crop, crop) uint8 and valid (crop, crop) bool.

    Scale U(spec.scale), flip with probability 1/2, crop at random out of the zero-padded image. Labels play no part.
    """
    scale = rng.uniform(*spec.scale)
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    scaled = np.asarray(picture)
    if rng.random() < 0.5:
        scaled = scaled[:, ::-1]
    canvas = np.zeros((max(height, spec.crop), max(width, spec.crop), 3), dtype=np.uint8)
    valid = np.zeros(canvas.shape[:2], dtype=bool)
    top, left = (int(rng.integers(0, big - side + 1)) for big, side in zip(canvas.shape, (height, width), strict=False))
    canvas[top : top + height, left : left + width] = scaled
    valid[top : top + height, left : left + width] = True
    y, x = (int(rng.integers(0, big - spec.crop + 1)) for big in canvas.shape[:2])
    window = (slice(y, y + spec.crop), slice(x, x + spec.crop))
    return torch.from_numpy(canvas[window].transpose(2, 0, 1).copy()), torch.from_numpy(valid[window].copy())


class _Schedule(Dataset[list[Sample]]):
    """Item t is one process' share of the batch of iteration t."""

    def __init__(self, images: Sequence[TrainingImage], spec: TrainSpec, share: slice) -> None:
        self.images, self.spec, self.share = images, spec, share

    def __len__(self) -> int:
        return self.spec.iterations

    def __getitem__(self, iteration: int) -> list[Sample]:
        batch = []
        for position in range(iteration * self.spec.batch_size, (iteration + 1) * self.spec.batch_size)[self.share]:
            epoch, place = divmod(position, len(self.images))
            order = np.random.default_rng([self.spec.seed, 0, epoch]).permutation(len(self.images))
            chosen = self.images[order[place]]
            rng = np.random.default_rng([self.spec.seed, 1, position])
            pixels, valid = augment(chosen.view.read(chosen.path), self.spec, rng)
            batch.append(Sample(pixels, valid, chosen.classes))
        return batch


def train(
    vision: Vision,
    images: Sequence[TrainingImage],
    spec: TrainSpec,
    refine: RefineSpec,
    architecture: Architecture,
    checkpoint: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Segmenter, list[LossRow]]:
    """Train on `images`; returns the segmenter in evaluation mode and one LossRow an iteration.

    Resumes from `checkpoint` when it exists (StoreError if it belongs to another architecture) and writes it every
    `spec.checkpoint_every` iterations. Gradients reach neck and head only. In a team every process calls this with the
    same arguments but for the device and gets the same; its first one writes the checkpoints. `progress` hears how many
    iterations were begun: a GPU may still be at the last few, for nothing waits for it but a checkpoint and every 50th step.
    """
    if not images:
        raise StoreError("no usable training image; see the manifest's errors, then rerun dataset")
    device, us = vision.clip.device, team()
    batches = _Schedule(images, spec, us.share(spec.batch_size))
    with _seeded(spec.seed, 0):
        segmenter = architecture.build().to(device).train()
    optimiser = torch.optim.AdamW(
        segmenter.parameters(), lr=spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay
    )
    start, rows = 0, []
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, architecture)
        segmenter.load_state_dict(state["segmenter"])
        optimiser.load_state_dict(state["optimiser"])
        start, rows = state["iteration"], [LossRow(*row) for row in state["losses"]]
    network = segmenter if us.world == 1 else DistributedDataParallel(segmenter)
    pending: list[Tensor] = []  # losses of the last iterations, still on the device
    for iteration, batch in _loaded(batches, start, device):
        with _seeded(spec.seed, iteration + 1):
            pending.append(training_step(vision, network, optimiser, batch, iteration, spec, refine))
        last = iteration + 1 == spec.iterations
        due = (iteration + 1) % spec.checkpoint_every == 0 and not last
        if due or last or len(pending) == LOOK_EVERY:
            rows += _loss_rows(len(rows), torch.stack(pending), spec)
            pending.clear()
        if due and us.rank == 0:
            state = {
                "iteration": iteration + 1,
                "segmenter": segmenter.state_dict(),
                "optimiser": optimiser.state_dict(),
                "losses": [list(vars(row).values()) for row in rows],
            }
            save_checkpoint(checkpoint, architecture, state)
        progress(iteration + 1)
    return segmenter.eval(), rows


def _loss_rows(first: int, losses: Tensor, spec: TrainSpec) -> list[LossRow]:
    """losses (n, 3) of the iterations from `first` on, fetched from the device."""
    found: list[list[float]] = losses.tolist()
    return [LossRow(t, loss, seg, div, learning_rate(t, spec)) for t, (loss, seg, div) in enumerate(found, first)]


def _loaded(batches: _Schedule, start: int, device: torch.device) -> Iterator[tuple[int, list[Sample]]]:
    """(iteration, batch) from `start` on."""
    spec = batches.spec
    workers = spec.workers if spec.workers is not None else _workers_that_keep_up(device)
    loader: Any = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, len(batches)),
        num_workers=workers,
        persistent_workers=False,
        pin_memory=device.type == "cuda",
    )
    return enumerate(loader, start)


def _workers_that_keep_up(device: torch.device) -> int:
    """Decoding and cropping four photos takes a core about 50 ms: nothing beside a step on a CPU, much beside one on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(4, cores - 1) if device.type == "cuda" else 0


def training_step(
    vision: Vision,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: list[Sample],
    iteration: int,
    spec: TrainSpec,
    refine: RefineSpec,
) -> Tensor:
    """One optimiser step on this process' share of a batch → (3,) total, L_seg, L_div, on the device; `network` is the
    segmenter, bare or in DDP."""
    device = vision.clip.device
    pixels = torch.stack([sample.pixels for sample in batch]).to(device, non_blocking=True).float()
    valid = torch.stack([sample.valid for sample in batch]).to(device, non_blocking=True)
    classes = [sample.classes for sample in batch]
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(iteration, spec)
    amp = spec.precision == "amp" and device.type == "cuda"
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
        with torch.inference_mode():
            encoded = vision.encode(normalise_pixels(pixels / 255, vision.spec.normalisation), refine.affinity.layers)
        with torch.no_grad():  # no tensor of the inference mode, which autograd would refuse
            layers = vision.layers(encoded)
        output: Segmentation = network(layers, encoded.path.grid)
    relation = relation_of(output.features.float(), vision.spec.calibration)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
        lvc = relation.detach() if iteration >= spec.dynamic_from else None
        cams, attention = vision.cams(encoded, lvc).float(), vision.attention(encoded.path, refine, lvc).float()
    with torch.no_grad():
        labels = refine_batch(pixels, classes, cams, attention, refine)
        if spec.padding == "ignored":
            labels[~valid] = IGNORE
    logits = F.interpolate(output.logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    own = spec.own_argmax_from is not None and iteration >= spec.own_argmax_from
    pairs = pair_labels(logits.argmax(dim=1) if own else labels, encoded.path.grid, spec.radius)
    loss_seg, loss_div = segmentation_loss(logits, labels), diversity_loss(relation.probability, pairs)
    loss = loss_seg + spec.diversity_weight * loss_div
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return torch.stack([loss, loss_seg, loss_div]).detach()


class _seeded:
    """Run a block under torch's generator seeded by (seed, part), leaving the global state as it was."""

    def __init__(self, seed: int, part: int) -> None:
        self.value = int(np.random.SeedSequence([seed, 2, part]).generate_state(1, np.uint64)[0] >> np.uint64(1))
        self.fork = torch.random.fork_rng(range(torch.cuda.device_count()))  # all, as manual_seed seeds all

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.value)

    def __exit__(self, *error: Any) -> None:
        self.fork.__exit__(*error)
