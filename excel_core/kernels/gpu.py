"""Whether Triton's kernels run on a device, and pictures of different sizes side by side in one array for them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TILE", "WARPS", "PackedSizes", "has_triton", "pack_sizes", "packed_pixels", "same_sizes"]

TILE = (16, 32)  # rows and columns of the pixels that one program of a kernel works on
WARPS = 16  # a thread for each pixel, so that values by pixel and values by pixel and map lie in the same threads
log = logging.getLogger(__name__)


def has_triton(device: torch.device) -> bool:
    """Whether kernels in Triton compile and run there. They need a C compiler beside the GPU's driver; where that is missing,
    this warns once and torch's own operations do the work."""
    return device.type == "cuda" and find_spec("triton") is not None and _compiles(device)


@lru_cache
def _compiles(device: torch.device) -> bool:
    from excel_core.kernels.trial_triton import trial

    try:
        trial(device)
    except Exception as error:  # a compiler, driver or card that is missing or too old may raise almost anything
        log.warning("Triton does not run on %s (%s); excel computes there with torch alone, more slowly", device, error)
        return False
    return True


@dataclass(frozen=True)
class PackedSizes:
    """P pictures (H, W), each of its own size, whose pixels stand one after the other in arrays (pixels, …).

    table (P, 4) int64 on the device: first pixel, height, width, first tile. Tiles of TILE pixels cover each picture by
    itself; `most_tiles`: of one picture.
    """

    table: Tensor
    pixels: int
    tiles: int
    most_tiles: int

    def __len__(self) -> int:
        return len(self.table)


def pack_sizes(sizes: Sequence[tuple[int, int]], device: torch.device) -> PackedSizes:
    """(H, W) of each picture → PackedSizes. Does not wait for the device."""
    rows, pixels, tiles, most_tiles = [], 0, 0, 0
    for height, width in sizes:
        rows.append((pixels, height, width, tiles))
        count = _tiles(height, width)
        pixels, tiles, most_tiles = pixels + height * width, tiles + count, max(most_tiles, count)
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)
    if device.type == "cuda":
        table = table.pin_memory()
    return PackedSizes(table.to(device, non_blocking=True), pixels, tiles, most_tiles)


def packed_pixels(images: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """images (H, W, 3) uint8, each of its own size → their pixels one after the other, (pixels, 3) uint8 on the device, by one
    copy that nobody waits for."""
    pixels = torch.empty(
        sum(image.shape[0] * image.shape[1] for image in images), 3, dtype=torch.uint8, pin_memory=device.type == "cuda"
    )
    np.concatenate([image.reshape(-1, 3) for image in images], out=pixels.numpy())
    return pixels.to(device, non_blocking=True)


def same_sizes(count: int, height: int, width: int, device: torch.device) -> PackedSizes:
    """PackedSizes of `count` pictures of one size; made on the device, so that a CUDA graph may hold it."""
    tiles = _tiles(height, width)
    order = torch.arange(count, device=device)
    side = torch.ones_like(order)
    table = torch.stack([order * (height * width), side * height, side * width, order * tiles], dim=1)
    return PackedSizes(table, count * height * width, count * tiles, tiles)


def _tiles(height: int, width: int) -> int:
    return -(-height // TILE[0]) * -(-width // TILE[1])
