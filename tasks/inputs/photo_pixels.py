"""Photos read ahead of the model: pixels where they are small, network inputs where a photo is large, so that memory does not
hold many large ones at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.background_pool import MAX_READ_AHEAD
from excel_core.cams.cam_model import CamModel
from excel_core.disk_maps import is_large
from tasks.inputs.images import ImageRecord

__all__ = ["ReadPhoto", "batch_reader", "batches_ahead", "images_in", "network_input", "photo_reader"]


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

    def read(image: ImageRecord) -> ReadPhoto:
        pixels = image.read()
        if not is_large(pixels.shape):
            return ReadPhoto(image, small=pixels)
        with torch.inference_mode():  # a thread has a mode of its own
            return ReadPhoto(image, network_input=cam_model.prepare_image(pixels))

    return read


def batch_reader(cam_model: CamModel) -> Callable[[Sequence[ImageRecord]], list[ReadPhoto]]:
    """`photo_reader` of a batch of images."""
    read = photo_reader(cam_model)
    return lambda images: [read(image) for image in images]


def batches_ahead(device: torch.device, batch_size: int) -> int:
    """Batches that are read ahead of the model. Beside a GPU, one for each thread; a CPU computes for longer than it reads."""
    return torch.get_num_threads() if device.type == "cuda" else max(1, MAX_READ_AHEAD // batch_size)


def images_in(read: tuple[Sequence[ImageRecord], Any]) -> int:
    """Images of a batch that was read, for a stage's counter."""
    return len(read[0])


def network_input(cam_model: CamModel, photos: Sequence[ReadPhoto]) -> Tensor:
    """B photos → network input (B, 3, S, S) on the model's device."""
    small = [photo.pixels() for photo in photos if not photo.is_large]
    prepared = iter(cam_model.prepare(small).split(1) if small else [])
    return torch.cat([next(prepared) if photo.network_input is None else photo.network_input for photo in photos])
