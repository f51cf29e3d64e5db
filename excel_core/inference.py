"""Segment images with the trained head: single scale, or several scales with flips averaged on logits (method 6)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.config import PredictSpec
from excel_core.seeds import Vision
from excel_core.segmenter import Segmenter

__all__ = ["segment_multi_scale", "segment_single_scale"]


def segment_single_scale(vision: Vision, segmenter: Segmenter, image: NDArray[np.uint8]) -> Tensor:
    """image (H, W, 3) uint8 → logits (C+1, H, W), background first: warped to S x S once, no flip."""
    return _logits(vision, segmenter, vision.prepare([vision.warp(image)]), image.shape[:2])[0]


def segment_multi_scale(vision: Vision, segmenter: Segmenter, image: NDArray[np.uint8], spec: PredictSpec) -> Tensor:
    """image (H, W, 3) uint8 → mean logits (C+1, H, W) over `spec.scales` and flips.

    Each scale is resized from the S x S input, never from another scale's. `flip="not_at_1"` forgets the flip at scale
    1.0, as the published VOC evaluation does.
    """
    base = vision.prepare([vision.warp(image)])
    total, count = torch.zeros((), device=base.device), 0
    for side, flips in scale_plan(base.shape[-1], vision.clip.patch, spec):
        resized = base if side == base.shape[-1] else _resize(base, side)
        views = torch.cat([resized, resized.flip(-1)]) if flips else resized
        logits = _logits(vision, segmenter, views, image.shape[:2], flips)
        total, count = total + logits.sum(dim=0), count + len(logits)
    return total / count


def scale_plan(size: int, patch: int, spec: PredictSpec) -> Sequence[tuple[int, bool]]:
    """(side in pixels, whether flipped too) a scale; sides are rounded to whole patches."""
    return [
        (max(patch, round(size * scale / patch) * patch), not (spec.flip == "not_at_1" and scale == 1.0))
        for scale in spec.scales
    ]


def _resize(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)


def _logits(vision: Vision, segmenter: Segmenter, views: Tensor, size: tuple[int, ...], flips: bool = False) -> Tensor:
    """views (V, 3, s, s), the second half mirrored when `flips` → logits (V, C+1, H, W), mirrored back."""
    encoded = vision.encode(views)
    logits = segmenter(vision.layers(encoded), encoded.path.grid).logits.float()
    if flips:
        half = len(views) // 2
        logits = torch.cat([logits[:half], logits[half:].flip(-1)])
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
