"""What the GPU's training figures are measured on: a plain CLIP, photos with made-up label maps, fresh segmenters, batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from bench.plain_vit import random_clip
from bench.scene import BACKGROUND, CLASSES, Scene
from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec, TrainSpec
from excel_core.config.presets import preset
from excel_core.datasets.images import AS_STORED, read_header
from excel_core.datasets.palette import save_labels_png
from excel_core.models.checkpoints import Architecture
from excel_core.models.segmenter import Segmenter
from excel_core.training.batches import Batch, Batches
from excel_core.training.samples import LabelFile, TrainingImage

__all__ = ["TrainingSubject", "plain_cam_model", "striped_images"]


@dataclass
class TrainingSubject:
    """What is measured: the CAM model, the photos, the run, and a folder for checkpoints."""

    cam_model: CamModel
    images: list[TrainingImage]
    run: RunSpec
    folder: Path

    @property
    def device(self) -> torch.device:
        return self.cam_model.clip.device

    def spec(self, **changes: Any) -> TrainSpec:
        """The run's own with changes."""
        return self.run.train.model_copy(update=changes)

    def architecture(self) -> Architecture:
        return Architecture.of(self.cam_model.clip, [f"class {c}" for c in range(CLASSES)], self.run.train.segmenter)

    def segmenter(self) -> Segmenter:
        """A fresh one, the same each time."""
        torch.manual_seed(0)
        return self.architecture().build().to(self.device).train()

    def batches(self, count: int) -> list[Batch]:
        """The first batches of a training, in page-locked memory where there is a GPU."""
        batches = Batches(self.images, self.run.train, slice(0, self.run.train.batch_size))
        first = [batches[iteration] for iteration in range(count)]
        return [batch.pin_memory() for batch in first] if self.device.type == "cuda" else first


def plain_cam_model(device: torch.device, tiny: bool) -> CamModel:
    """A ViT-B/16 of seeded random weights with as many random texts; `tiny`: six narrow blocks."""
    clip = random_clip(blocks=6, width=64, joint=32) if tiny else random_clip()
    clip.model.to(device)
    text = F.normalize(torch.randn(CLASSES + BACKGROUND, clip.joint_width, generator=torch.Generator().manual_seed(1)), dim=-1)
    return CamModel(clip, text.to(device), CLASSES, preset("voc").cams)


def striped_images(scene: Scene, folder: Path) -> list[TrainingImage]:
    """Photos with label maps of three upright stripes, some 600 in all."""
    images = []
    for path, classes in zip(scene.paths, scene.classes, strict=True):
        header = read_header(path)
        labels = np.zeros((header.height, header.width), np.uint8)
        labels[:, header.width // 3 :] = classes[0] + 1
        labels[:, 2 * header.width // 3 :] = classes[-1] + 1
        save_labels_png(folder / f"{path.stem}.png", labels)
        images.append(TrainingImage(path, classes, AS_STORED, LabelFile(folder / f"{path.stem}.png")))
    return images * max(1, 600 // len(images))
