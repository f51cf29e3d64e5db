"""JPEG files decoded by torchvision, for threads beside a GPU: it takes two thirds of Pillow's time, and other threads run
meanwhile. Used only where its pixels are Pillow's, bit for bit."""

import io
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["decoded_jpeg", "torchvision_decodes_alike"]

SIZES = ((64, 48), (37, 51))  # of the pictures that are tried: with odd sides too
QUALITIES, SUBSAMPLINGS = (50, 95), (0, 1, 2)  # 4:4:4, 4:2:2, 4:2:0


@cache
def torchvision_decodes_alike() -> bool:
    """Whether torchvision is there and decodes some pictures to the very pixels that Pillow gives: each has its own libjpeg."""
    random = np.random.default_rng(0)
    try:
        for size, quality, subsampling, progressive in product(SIZES, QUALITIES, SUBSAMPLINGS, (False, True)):
            coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
            file = io.BytesIO()
            coarse.save(file, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
            if not np.array_equal(_by_torchvision(file.getvalue()), np.asarray(Image.open(file, formats=["JPEG"]))):
                return False
    except (ImportError, RuntimeError):
        return False
    return True


def decoded_jpeg(content: bytes) -> NDArray[np.uint8] | None:
    """The content of a colour JPEG → (H, W, 3) uint8 RGB; None where torchvision finds it damaged: Pillow then says how."""
    try:
        return _by_torchvision(content)
    except RuntimeError:
        return None


def _by_torchvision(content: bytes) -> NDArray[np.uint8]:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg  # of bytes that Python has read: the mask guard has seen the file

    values = torch.from_numpy(np.frombuffer(content, np.uint8).copy())  # torch warns of memory that cannot be written
    pixels: Any = decode_jpeg(values, mode=ImageReadMode.RGB).permute(1, 2, 0).contiguous().numpy()
    return pixels  # type: ignore[no-any-return]
