"""Photos read ahead of the model: pixels where they are small, network inputs where a photo is large, so that memory does not
hold many large ones at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.disk_maps import is_large
from tasks.inputs.images import ImageRecord

__all__ = ["ReadPhoto", "network_input", "photo_reader"]


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


def network_input(cam_model: CamModel, photos: Sequence[ReadPhoto]) -> Tensor:
    """B photos → network input (B, 3, S, S) on the model's device."""
    return torch.cat(
        [cam_model.prepare_image(photo.pixels()) if photo.network_input is None else photo.network_input for photo in photos]
    )
