"""The way WeCLIP looks at a photo (peers.md 3.8): its longer side at a fixed length, its shape kept, scales made of that input.

One photo at a time, since their inputs differ in size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.config import PredictSpec
from excel_core.models.photo_input import longest_side_size
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.inference import network_logits

__all__ = [
    "GridLogits", "grid_logits", "longest_side_input", "photo_logits", "scaled_input", "segment_longest_side",
]  # fmt: skip

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class GridLogits:
    """Logits of one photo on the grid (h, w) of scale 1: `by_scale` (scales, C+1, h, w), of each the mean of photo and mirror;
    `single` (C+1, h, w), scale 1 without flip."""

    single: Tensor
    by_scale: Tensor

    @property
    def mean(self) -> Tensor:
        """(C+1, h, w), over the scales."""
        return self.by_scale.mean(dim=0)


def longest_side_input(cam_model: CamModel, image: Image, spec: PredictSpec) -> Tensor:
    """image (H, W, 3) uint8 → network input (1, 3, H', W') at scale 1, normalised."""
    clip, dino = cam_model.clip, cam_model.dino
    # A smaller scale must leave a patch of either encoder.
    least = int(np.ceil(max(clip.patch, dino.patch if dino is not None else 0) / min(1.0, *spec.scales)))
    size = longest_side_size(
        (image.shape[0], image.shape[1]), spec.image_size, clip.patch, spec.protocol == "whole_patches", least
    )
    return cam_model.prepare_image(image, size)


def scaled_input(network_input: Tensor, scale: float, patch: int, whole_patches: bool) -> Tensor:
    """network input (B, 3, H, W) → at a scale. As published, the scale itself sets the sampling grid, not the ratio of
    sizes."""
    if scale == 1.0:
        return network_input
    if not whole_patches:
        return F.interpolate(network_input, scale_factor=scale, mode="bilinear", align_corners=False)
    height, width = (max(patch, round(side * scale / patch) * patch) for side in network_input.shape[-2:])
    return F.interpolate(network_input, size=(height, width), mode="bilinear", align_corners=False)


def grid_logits(cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, spec: PredictSpec) -> GridLogits:
    """network input (1, 3, H, W) of scale 1 → GridLogits over `spec.scales`, each with the mirror."""
    patch = cam_model.clip.patch
    grid = (network_input.shape[-2] // patch, network_input.shape[-1] // patch)
    single, by_scale = None, []
    for scale in spec.scales:
        view = scaled_input(network_input, scale, patch, spec.protocol == "whole_patches")
        logits = network_logits(cam_model, segmenter, torch.cat([view, view.flip(-1)]))
        if scale == 1.0:
            single = logits[0]
        # As published: resized first, then turned back.
        logits = F.interpolate(logits, size=grid, mode="bilinear", align_corners=False)
        by_scale.append((logits[0] + logits[1].flip(-1)) / 2)
    if single is None:
        single = network_logits(cam_model, segmenter, network_input)[0]
    return GridLogits(single, torch.stack(by_scale))


def segment_longest_side(
    cam_model: CamModel, segmenter: Segmenter, images: Sequence[Image], spec: PredictSpec, multi_scale: bool
) -> list[Tensor]:
    """images (H, W, 3) uint8 → logits (C+1, H, W) each: at scale 1 without flip, or the mean over scales and flips."""
    grids = (photo_logits(cam_model, segmenter, image, spec, multi_scale) for image in images)
    return [
        F.interpolate(logits[None], size=(image.shape[0], image.shape[1]), mode="bilinear", align_corners=False)[0]
        for logits, image in zip(grids, images, strict=True)
    ]


def photo_logits(cam_model: CamModel, segmenter: Segmenter, image: Image, spec: PredictSpec, multi_scale: bool) -> Tensor:
    """image (H, W, 3) uint8 → logits (C+1, h, w) on the grid of scale 1, as `segment_longest_side` enlarges them."""
    network_input = longest_side_input(cam_model, image, spec)
    if not multi_scale:
        return network_logits(cam_model, segmenter, network_input)[0]
    return grid_logits(cam_model, segmenter, network_input, spec).mean
