"""Photos read ahead of the model: pixels where they are small, network inputs where a photo is large, so that memory does not
hold many large ones at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.background_pool import MAX_READ_AHEAD, read_ahead
from excel_core.cams.cam_model import CamModel
from excel_core.config import CamSpec
from excel_core.datasets.jpeg import torchvision_decodes_alike
from excel_core.disk_maps import is_large
from tasks.inputs.images import ImageRecord, batches

__all__ = ["ReadPhoto", "images_per_batch", "network_input", "photo_batches", "photo_reader"]

BATCHES_AHEAD = 3  # that are read beside a GPU


@dataclass(frozen=True)
class ReadPhoto:
    """A photo that was read. `network_input` (1, 3, S, S) of a large one, whose pixels are read again when they are needed;
    `small`: the pixels of another, (H, W, 3) uint8 RGB."""

    image: ImageRecord
    network_input: Tensor | None = None
    small: NDArray[np.uint8] | None = None

    @property
    def is_large(self) -> bool:
        """Whether it is computed window by window."""
        return self.small is None

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB."""
        return self.image.read() if self.small is None else self.small


def photo_reader(cam_model: CamModel) -> Callable[[ImageRecord], ReadPhoto]:
    """What reads an image for `cam_model`, on any thread."""
    by_torchvision = cam_model.clip.device.type == "cuda" and torchvision_decodes_alike()

    def read(image: ImageRecord) -> ReadPhoto:
        pixels = image.read(by_torchvision)
        if not is_large(pixels.shape):
            return ReadPhoto(image, small=pixels)
        with torch.inference_mode():  # a thread has a mode of its own
            return ReadPhoto(image, network_input=cam_model.prepare_image(pixels))

    return read


def photo_batches(cam_model: CamModel, images: Sequence[ImageRecord]) -> Iterator[list[ReadPhoto]]:
    """Images in batches of the spec's size, one by one at their native size; read ahead of the model: beside a GPU some
    batches, for it computes faster than they are read."""
    size = images_per_batch(cam_model.spec)
    ahead = BATCHES_AHEAD * size if cam_model.clip.device.type == "cuda" else MAX_READ_AHEAD
    for batch in batches(read_ahead(images, photo_reader(cam_model), ahead), size):
        yield [photo for _, photo in batch]


def images_per_batch(spec: CamSpec) -> int:
    """`cams.batch_size`; photos at their native size are of different shapes, and go one by one."""
    return 1 if spec.input == "native" else spec.batch_size


def network_input(cam_model: CamModel, photos: Sequence[ReadPhoto]) -> Tensor:
    """B photos → network input (B, 3, S, S) on the model's device."""
    small = [photo.pixels() for photo in photos if not photo.is_large]
    prepared = iter(cam_model.prepare(small).split(1) if small else [])
    return torch.cat([next(prepared) if photo.network_input is None else photo.network_input for photo in photos])
