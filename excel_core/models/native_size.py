"""Photos at their native size, as CLIP-ES shows them to CLIP: enlarged until both sides are whole patches."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from excel_core.models.clip import as_pixels

__all__ = ["MAX_NATIVE_SIDE", "native_grid", "native_pixels"]

# The tower's attention grows with the square of the patches: at 64 x 64 it is 0.8 GB of ViT-B/16's last block. VOC and COCO
# have no photo of more than 640.
MAX_NATIVE_SIDE = 1024


def native_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches that a photo of this size gets: its sides in patches, rounded up. A longer side of more than
    MAX_NATIVE_SIDE counts as that, the other one in proportion."""
    shrink = min(1.0, MAX_NATIVE_SIDE / max(height, width))
    rows, columns = (max(1, -(-round(side * shrink) // patch)) for side in (height, width))
    return rows, columns


def native_pixels(image: NDArray[np.uint8], patch: int, device: torch.device) -> Tensor:
    """image (H, W, 3) uint8 RGB → (1, 3, rows * patch, columns * patch) in [0, 1], resized by Pillow's bicubic in 8 bits."""
    rows, columns = native_grid(image.shape[0], image.shape[1], patch)
    resized = Image.fromarray(image).resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    return as_pixels(np.array(resized), device)
