"""What `train.precision=bf16` changes: a short training in float32 and one in bf16, from the same start on the same batches.

    python -m bench.precision [--device cuda] [--steps 300] [--batch 4] [--side 320] [--tiny] [--json FILE]

A ViT-B/16 of seeded random weights (`--tiny`: 6 narrow blocks, for a CPU) looks at crops of seeded random pictures. Targets
change within the steps as within VOC's 30,000: static, then dynamic, then the head's own argmax. Without dropout, whose draws
are others in bf16, and without warm-up. Reported are the relative difference of the losses step by step; the share of pixels
whose pseudo label is the same, while labels are static (the tower's precision alone) and dynamic (the weights' too); the share
of pixels that the two trained heads segment alike, both looked at in float32; seconds per step and peak memory of each.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.device import classes_of, pictures
from bench.plain_vit import random_clip
from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec, SegmenterSpec, TrainSpec
from excel_core.config.presets import preset
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.inference import segment_single_scale
from excel_core.training.batches import Batch
from excel_core.training.optimiser import make_optimiser
from excel_core.training.samples import Sample, augment
from excel_core.training.step import StepResult, training_step
from tasks.engine.memory import MemoryWatch, Peak

CLASSES, BACKGROUND = 20, 25
PICTURES = 16  # that crops are taken from, and that are segmented at the end
PICTURE_SCALE = 1.25  # a picture's side, in sides of a crop
PRECISIONS = ("fp32", "bf16")
LOSSES = ("total", "segmentation", "diversity")


@dataclass(frozen=True)
class Trained:
    """A short training: losses (N, 3), the steps' labels (N, B, S, S) and the trained head's of the pictures, uint8."""

    losses: Tensor
    labels: Tensor
    segmented: Tensor
    seconds: float  # per step
    peak: Peak

    @property
    def cost(self) -> dict[str, Any]:
        """What it took."""
        return {"seconds_per_step": self.seconds, **{f"peak_{name}": value for name, value in self.peak.model_dump().items()}}


def spec_of(run: RunSpec, steps: int, batch: int, side: int) -> TrainSpec:
    """VOC's schedule of targets in so many steps; random crops, since the pictures have no labels to choose them by."""
    published = run.train
    share = steps / published.iterations
    return published.model_copy(
        update={
            "segmenter": SegmenterSpec(dropout=0),
            "iterations": steps,
            "batch_size": batch,
            "warmup": 0,
            "dynamic_from": round(share * (published.dynamic_from or 0)),
            "own_argmax_from": round(share * (published.own_argmax_from or 0)),
            "crop": side,
            "crop_rule": "random",
        }
    )


def batches(images: Tensor, spec: TrainSpec, device: torch.device) -> list[list[Sample]]:
    """A batch per step, of crops of images (P, 3, S, S), the same at every call."""
    photos, classes = images.byte().permute(0, 2, 3, 1).numpy(), classes_of(len(images))
    batches_by_step = []
    for step in range(spec.iterations):
        positions = range(step * spec.batch_size, (step + 1) * spec.batch_size)
        crops = [
            augment(photos[i % len(photos)], classes[i % len(photos)], None, spec, np.random.default_rng([0, i]))
            for i in positions
        ]
        batches_by_step.append([crop.pin_memory() for crop in crops] if device.type == "cuda" else crops)
    return batches_by_step


def trained(cam_model: CamModel, samples: Sequence[list[Sample]], spec: TrainSpec, run: RunSpec, images: Tensor) -> Trained:
    """Train a head from seeded weights, after one untimed step of another head in which kernels are compiled and chosen."""
    _steps(cam_model, _head(cam_model, spec), samples[:1], spec, run)
    segmenter, device = _head(cam_model, spec), cam_model.clip.device
    with MemoryWatch(gpu=device.type == "cuda") as watch:
        _wait_for(device)
        started = time.perf_counter()
        results = _steps(cam_model, segmenter, samples, spec, run)
        _wait_for(device)
        seconds = (time.perf_counter() - started) / len(samples)
    losses = torch.stack([result.losses[: len(LOSSES)] for result in results]).cpu()
    labels = torch.stack([result.labels for result in results]).cpu()
    return Trained(losses, labels, _segmented(cam_model, segmenter, images), seconds, watch.peak)


def _head(cam_model: CamModel, spec: TrainSpec) -> Segmenter:
    torch.manual_seed(0)
    return (
        Segmenter(len(cam_model.clip.blocks), cam_model.clip.width, CLASSES, spec.segmenter).to(cam_model.clip.device).train()
    )


def _steps(
    cam_model: CamModel, segmenter: Segmenter, samples: Sequence[list[Sample]], spec: TrainSpec, run: RunSpec
) -> list[StepResult]:
    """One step per batch. Labels are kept as uint8 on the device."""
    optimiser = make_optimiser(segmenter, spec)
    results = []
    for step, batch in enumerate(samples):
        result = training_step(cam_model, segmenter, optimiser, Batch.of(batch), step, spec, run.refine)
        results.append(replace(result, labels=result.labels.to(torch.uint8)))
    return results


@torch.inference_mode()
def _segmented(cam_model: CamModel, segmenter: Segmenter, images: Tensor) -> Tensor:
    """(P, H, W) uint8: the labels of every picture, single scale."""
    photos = images.byte().permute(0, 2, 3, 1).numpy()
    labels = [
        segment_single_scale(cam_model, segmenter.eval(), [photo])[0].argmax(dim=0).to(torch.uint8).cpu() for photo in photos
    ]
    return torch.stack(labels)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compared(plain: Trained, other: Trained, spec: TrainSpec) -> dict[str, Any]:
    """Relative differences of the losses from float32, and shares of equal labels; None for a kind of label without a step."""
    relative = (other.losses - plain.losses).abs() / plain.losses.abs()
    losses = {
        name: {"largest": float(differences.max()), "mean": float(differences.mean())}
        for name, differences in zip(LOSSES, relative.unbind(dim=1), strict=True)
    }
    first = spec.dynamic_from or 0
    return {
        "relative_difference_of_loss": losses,
        "equal_pseudo_labels": {
            "static": _equal(plain.labels[:first], other.labels[:first]),
            "dynamic": _equal(plain.labels[first:], other.labels[first:]),
        },
        "equal_segmentation": _equal(plain.segmented, other.segmented),
    }


def _equal(a: Tensor, b: Tensor) -> float | None:
    return float((a == b).float().mean()) if a.numel() else None


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    text = [f"{result['device']}, torch {result['torch']}: {result['steps']} steps of {result['batch']} at {result['side']} px"]
    for name, each in result["relative_difference_of_loss"].items():
        text.append(f"loss, {name}: relative difference {each['mean']:.2e} in the mean, {each['largest']:.2e} at most")
    shares = result["equal_pseudo_labels"] | {"segmentation": result["equal_segmentation"]}
    text += [f"equal labels, {name}: {100 * share:.2f} %" for name, share in shares.items() if share is not None]
    for precision in PRECISIONS:
        cost = result[precision]
        memory = {name: cost[f"peak_{name}_bytes"] for name in ("host", "gpu")}
        words = [f"{name} {value / 2**30:.2f} GiB" for name, value in memory.items() if value is not None]
        text.append(
            f"{precision}: {cost['seconds_per_step']:.3f} s per step; peak memory: {', '.join(words) or 'not measured'}"
        )
    return text


def measured(device: torch.device, steps: int, batch: int, side: int, tiny: bool) -> dict[str, Any]:
    """Both trainings, compared."""
    run, clip = preset("voc"), random_clip(blocks=6, width=64, joint=32) if tiny else random_clip()
    clip.model.to(device)
    text = F.normalize(torch.randn(CLASSES + BACKGROUND, clip.joint_width, generator=torch.Generator().manual_seed(1)), dim=-1)
    cams = run.cams.model_copy(update={"image_size": side, "precision": "fp32"})
    cam_model = CamModel(clip, text.to(device), CLASSES, cams)
    spec = spec_of(run, steps, batch, side)
    images = pictures(PICTURES, int(PICTURE_SCALE * side))
    samples = batches(images, spec, device)
    trainings = {
        way: trained(cam_model, samples, spec.model_copy(update={"precision": way}), run, images) for way in PRECISIONS
    }
    return {
        "format": "excel-precision/1",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "tower": clip.name,
        "steps": steps,
        "batch": batch,
        "side": side,
        **compared(trainings["fp32"], trainings["bf16"], spec),
        **{way: training.cost for way, training in trainings.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--tiny", action="store_true", help="a tower of 6 narrow blocks, for a CPU")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    result = measured(device, arguments.steps, arguments.batch, arguments.side, arguments.tiny)
    print("\n".join(lines(result)))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
