"""Photos, a ViT-B/16 of random weights, and what comes between them: what the cases of `make bench` share."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.plain_vit import random_clip
from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.config.presets import preset
from excel_core.datasets.images import read_image
from excel_core.datasets.labels import read_labels_csv
from excel_core.models.clip import FrozenClip
from excel_core.text.class_sets import class_set

__all__ = ["CLASSES", "PHOTOS", "SIDE", "Scene"]

PHOTOS = Path(__file__).parent.parent.parent / "shared" / "data" / "VOC2012"
CLASSES, BACKGROUND, SIDE = 20, 25, 320
Floats = NDArray[np.float32]


class Scene:
    """`count` photos spread over a folder in VOC's layout with labels.csv. Everything is computed on first use."""

    def __init__(self, photos: Path, count: int = 8) -> None:
        self.run: RunSpec = preset("voc")
        names = class_set(self.run, None).class_names
        labels = list(read_labels_csv(photos / "labels.csv", names).items())
        chosen = labels[:: max(1, len(labels) // count)][:count]
        self.paths = [photos / "JPEGImages" / f"{image}.jpg" for image, _ in chosen]
        self.classes = [tuple(names.index(name) for name in image_labels) for _, image_labels in chosen]

    @cached_property
    def images(self) -> list[NDArray[np.uint8]]:
        """(H, W, 3) each."""
        return [read_image(path) for path in self.paths]

    @cached_property
    def clip(self) -> FrozenClip:
        """ViT-B/16."""
        return random_clip()

    @cached_property
    def text(self) -> Tensor:
        """(C+Z, D) unit rows."""
        return F.normalize(torch.randn(CLASSES + BACKGROUND, 512, generator=torch.Generator().manual_seed(1)), dim=-1)

    @cached_property
    def cam_model(self) -> CamModel:
        """The CLIP with its texts."""
        return CamModel(self.clip, self.text, CLASSES, self.run.cams)

    @cached_property
    def inputs(self) -> list[Tensor]:
        """(1, 3, SIDE, SIDE) each."""
        return [self.cam_model.prepare([image]) for image in self.images]

    @cached_property
    def pixels(self) -> list[Tensor]:
        """(1, 3, H, W) each, in 0…255."""
        return [torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in self.images]

    @cached_property
    def maps(self) -> list[Tensor]:
        """Smooth maps (1, K+1, H, W) of each photo's classes, background first."""
        return [torch.cat([1 - full.amax(dim=1, keepdim=True), full], dim=1) for full in self._smooth(torch.rand)]

    def _smooth(self, draw: Callable[..., Tensor], labels: int | None = None) -> list[Tensor]:
        """Values drawn on a grid of patches, a plane per class of the photo (or `labels` planes), at the photo's size."""
        planes = []
        for i, (image, classes) in enumerate(zip(self.images, self.classes, strict=True)):
            grid = draw(1, labels or len(classes), 20, 20, generator=torch.Generator().manual_seed(i))
            planes.append(F.interpolate(grid, size=image.shape[:2], mode="bilinear", align_corners=False))
        return planes

    @cached_property
    def probabilities(self) -> list[Floats]:
        """Probabilities (K+1, H, W) of background and the photo's classes."""
        return [(maps[0] / maps[0].sum(dim=0)).numpy() for maps in self.maps]

    @cached_property
    def among_all_labels(self) -> list[Floats]:
        """The same among all labels (C+1, H, W), most of them zero: the published code's input of the CRF."""
        padded = []
        for probabilities, classes in zip(self.probabilities, self.classes, strict=True):
            full = np.zeros((CLASSES + 1, *probabilities.shape[1:]), np.float32)
            full[[0, *(c + 1 for c in classes)]] = probabilities
            padded.append(full)
        return padded

    @cached_property
    def spread(self) -> list[Floats]:
        """Probabilities (C+1, H, W), all labels somewhere."""
        return [torch.softmax(3 * full, dim=1)[0].numpy() for full in self._smooth(torch.randn, CLASSES + 1)]

    def label_of(self, index: int, slot: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Slots 0 background, i+1 the photo's i-th class → labels."""
        return np.array([0, *(c + 1 for c in self.classes[index])], dtype=np.uint8)[slot]

    def crop(self, index: int) -> Tensor:
        """A photo as a training crop, (3, SIDE, SIDE) uint8."""
        square = Image.fromarray(self.images[index]).resize((SIDE, SIDE))
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)
