"""Images and iterations per second and memory on a device, with torch and excel_core alone: no Prefect, no open_clip, no data.

    python -m bench.device [--device cuda] [--json FILE] [--side 320] [--batches 4,8,16,32,64] [--steps 20] [--tiny]

Needs numpy, scipy, pandas, pillow, pydantic and pyyaml beside torch. A ViT-B/16 of seeded random weights looks at seeded
random pictures. Reported are the tower with SVC and CAMs by batch and precision, and compiled by torch, with the share of
pixels whose refined label (affinity, PAR) is that of float32; and training before and after LVC, by batch. The paper gives,
for an RTX 3090, 2.9 GB training-free, 3.2 GB and 90 min for 30,000 iterations at batch 4.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.plain_vit import random_clip
from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import class_slots, refine_batch
from excel_core.config import RunSpec
from excel_core.config.presets import preset
from excel_core.models.clip import FrozenClip
from excel_core.models.segmenter import Segmenter
from excel_core.training.batches import Batch
from excel_core.training.samples import plain_sample
from excel_core.training.step import training_step

CLASSES, BACKGROUND = 20, 25
PRECISIONS = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16", "fp32, torch.compile": "fp32"}  # by way of computing


def pictures(count: int, side: int) -> Tensor:
    """(count, 3, side, side) float32 in 0…255: smooth regions with some noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 12, 12, generator=generator)
    smooth = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    return ((smooth + 0.02 * torch.randn(count, 3, side, side, generator=generator)) * 255).clamp(0, 255).round()


def classes_of(count: int) -> list[tuple[int, ...]]:
    """One to three classes per image, as VOC's have."""
    return [tuple(range(i % 7, i % 7 + 1 + i % 3)) for i in range(count)]


def timed(device: torch.device, call: Callable[[], Any], repeats: int) -> tuple[float, int]:
    """(seconds per call after a warm-up, peak bytes of the device's memory; 0 on a CPU)."""
    cuda = device.type == "cuda"
    for _ in range(2):
        call()
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    if cuda:
        torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - started) / repeats
    return seconds, torch.cuda.max_memory_allocated(device) if cuda else 0


@torch.inference_mode()
def cams(cam_model: CamModel, images: Tensor, batches: list[int], run: RunSpec, repeats: int) -> list[dict[str, Any]]:
    """Training-free stages by batch and precision."""
    rows, device = [], cam_model.clip.device
    for batch in batches:
        pixels, classes = images[:batch].to(device), class_slots(classes_of(batch)).to(device)
        inputs = (pixels / 255 - 0.45) / 0.25
        expected = None
        for way, precision in PRECISIONS.items():
            model = replace(cam_model, spec=cam_model.spec.model_copy(update={"precision": precision}))

            def encode(model: CamModel = model, inputs: Tensor = inputs) -> tuple[Tensor, Tensor]:
                encoded = model.encode(inputs, run.refine.affinity.layers, with_patch_tokens=False)
                return model.cams(encoded).float(), model.attention(encoded.activations, run.refine)

            def refine(maps: tuple[Tensor, Tensor], pixels: Tensor = pixels, classes: Any = classes) -> Tensor:
                return refine_batch(pixels, classes, *maps, run.refine)

            encode_batch = torch.compile(encode) if "compile" in way else encode
            seconds, peak = timed(device, encode_batch, repeats)
            refine_seconds, refine_peak = timed(device, lambda maps=encode_batch(): refine(maps), repeats)  # noqa: B008
            labels = refine(encode_batch())
            expected = labels if expected is None else expected
            rows.append(
                {
                    "batch": batch,
                    "way": way,
                    "cams_images_per_second": batch / seconds,
                    "refined_images_per_second": batch / refine_seconds,
                    "peak_bytes": max(peak, refine_peak),
                    "equal_labels": float((labels == expected).float().mean()),
                }
            )
            print(rows[-1], flush=True)
    return rows


def training(cam_model: CamModel, images: Tensor, batches: list[int], run: RunSpec, repeats: int) -> list[dict[str, Any]]:
    """Steps before and after LVC begins, by batch, in the precision of a run."""
    rows, device, spec = [], cam_model.clip.device, run.train
    for batch in batches:
        torch.manual_seed(0)
        clip = cam_model.clip
        segmenter = Segmenter(len(clip.blocks), clip.width, CLASSES, spec.segmenter).to(device).train()
        optimiser = torch.optim.AdamW(segmenter.parameters(), lr=spec.learning_rate)
        pairs = zip(images[:batch], classes_of(batch), strict=True)
        samples = Batch.of([plain_sample(image.byte(), classes) for image, classes in pairs])
        samples = samples.pin_memory() if device.type == "cuda" else samples
        for name, iteration in (("before LVC", spec.warmup), ("with LVC", spec.dynamic_from)):

            def step(
                iteration: int = iteration, segmenter: Any = segmenter, optimiser: Any = optimiser, samples: Any = samples
            ) -> None:
                training_step(cam_model, segmenter, optimiser, samples, iteration, spec, run.refine)

            seconds, peak = timed(device, step, repeats)
            rows.append({"batch": batch, "phase": name, "iterations_per_second": 1 / seconds, "peak_bytes": peak})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--batches", default="4,8,16,32,64")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="a tower of 4 narrow blocks, to try the script itself")
    arguments = parser.parse_args()
    batches = [int(batch) for batch in arguments.batches.split(",")]
    device = torch.device(arguments.device)
    clip: FrozenClip = random_clip(blocks=6, width=64, joint=32) if arguments.tiny else random_clip()
    clip.model.to(device)
    text = F.normalize(torch.randn(CLASSES + BACKGROUND, clip.joint_width, generator=torch.Generator().manual_seed(1)), dim=-1)
    run = preset("voc")
    spec = run.cams.model_copy(update={"image_size": arguments.side})
    cam_model = CamModel(clip, text.to(device), CLASSES, spec)
    images = pictures(max(batches), arguments.side)
    result = {
        "format": "excel-device/1",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "side": arguments.side,
        "cams": cams(cam_model, images, batches, run, arguments.steps),
        "training": training(cam_model, images, batches, run, arguments.steps),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
