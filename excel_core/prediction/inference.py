"""Segment images with the trained head: single scale, or several scales with flips averaged on logits (method 6)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.config import PredictSpec
from excel_core.models.clip import as_pixels
from excel_core.models.segmenter import Segmenter

__all__ = ["scale_plan", "segment_multi_scale", "segment_single_scale"]

Size = tuple[int, int]


def segment_single_scale(cam_model: CamModel, segmenter: Segmenter, image: NDArray[np.uint8]) -> Tensor:
    """image (H, W, 3) uint8 → logits (C+1, H, W), background first: resized to S x S once, no flip."""
    logits = _logits(cam_model, segmenter, cam_model.prepare([image]))
    return _enlarged(logits, (image.shape[0], image.shape[1]))[0]


def segment_multi_scale(cam_model: CamModel, segmenter: Segmenter, image: NDArray[np.uint8], spec: PredictSpec) -> Tensor:
    """image (H, W, 3) uint8 → mean logits (C+1, H, W) over `spec.scales`, each scale the mean over its flips.

    Every scale is resized from the photo itself. `flip="not_at_1"` forgets the flip at scale 1.0, as the published VOC
    evaluation does. Logits are averaged at `spec.average_at` of the photo's sides, then enlarged.
    """
    size = (image.shape[0], image.shape[1])
    small = tuple(max(1, int(spec.average_at * side)) for side in size)
    pixels = as_pixels(image, cam_model.clip.device)
    by_scale = []
    for side, flips in scale_plan(cam_model.spec.image_size, cam_model.clip.patch, spec):
        view = cam_model.prepare_pixels(pixels, side)
        logits = _logits(cam_model, segmenter, torch.cat([view, view.flip(-1)]) if flips else view)
        if flips:
            logits = torch.stack([logits[0], logits[1].flip(-1)])
        by_scale.append(_enlarged(logits, (small[0], small[1])).mean(dim=0))
    mean = torch.stack(by_scale).mean(dim=0)
    return mean if small == size else _enlarged(mean[None], size)[0]


def scale_plan(size: int, patch: int, spec: PredictSpec) -> Sequence[tuple[int, bool]]:
    """(side in pixels, whether flipped too) a scale; sides are rounded to whole patches, which S = 320 needs at no scale."""
    return [
        (max(patch, round(size * scale / patch) * patch), not (spec.flip == "not_at_1" and scale == 1.0))
        for scale in spec.scales
    ]


def _logits(cam_model: CamModel, segmenter: Segmenter, views: Tensor) -> Tensor:
    """views (V, 3, s, s) network input → logits (V, C+1, h, w)."""
    encoded = cam_model.encode(views)
    return segmenter(cam_model.layers(encoded), encoded.activations.grid).logits.float()  # type: ignore[no-any-return]


def _enlarged(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
