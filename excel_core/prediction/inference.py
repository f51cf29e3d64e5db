"""Segment images with the trained head: single scale, or several scales with flips averaged on logits (method 6)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.config import PredictSpec
from excel_core.disk_maps import is_large
from excel_core.models.clip import as_pixels
from excel_core.models.segmenter import Segmenter

__all__ = [
    "averaging_size", "logits_by_scale", "network_logits", "scale_plan", "segment_multi_scale", "segment_single_scale",
]  # fmt: skip

Size = tuple[int, int]


def segment_single_scale(cam_model: CamModel, segmenter: Segmenter, image: NDArray[np.uint8]) -> Tensor:
    """image (H, W, 3) uint8 → logits (C+1, H, W), background first: resized to S x S once, no flip."""
    logits = network_logits(cam_model, segmenter, cam_model.prepare([image]))
    return _resized(logits, (image.shape[0], image.shape[1]))[0]


def segment_multi_scale(cam_model: CamModel, segmenter: Segmenter, image: NDArray[np.uint8], spec: PredictSpec) -> Tensor:
    """image (H, W, 3) uint8 → mean logits (C+1, H, W) over `spec.scales`, each scale the mean over its flips.

    Every scale is resized from the photo itself. `flip="not_at_1"` forgets the flip at scale 1.0, as the published VOC
    evaluation does. Logits are averaged at `spec.average_at` of the photo's sides, then enlarged.
    """
    size = (image.shape[0], image.shape[1])
    small = averaging_size(size, spec)
    # The mean of each scale first: a scale without its flip weighs as much as the others.
    by_scale = [_resized(logits, small).mean(dim=0) for logits in logits_by_scale(cam_model, segmenter, image, spec)]
    mean = torch.stack(by_scale).mean(dim=0)
    return mean if small == size else _resized(mean[None], size)[0]


def averaging_size(size: Size, spec: PredictSpec) -> Size:
    """The size (H, W) at which the logits of several scales are averaged, of a photo of `size`."""
    return max(1, int(spec.average_at * size[0])), max(1, int(spec.average_at * size[1]))


def logits_by_scale(cam_model: CamModel, segmenter: Segmenter, image: NDArray[np.uint8], spec: PredictSpec) -> Iterator[Tensor]:
    """image (H, W, 3) uint8 → logits (V, C+1, h, w) of each of `spec.scales`; V is 2 where there is a flip, turned back."""
    pixels = None if is_large(image.shape) else as_pixels(image, cam_model.clip.device)
    for side, flips in scale_plan(cam_model.spec.image_size, cam_model.clip.patch, spec):
        network_input = cam_model.prepare_image(image, side) if pixels is None else cam_model.prepare_pixels(pixels, side)
        views = torch.cat([network_input, network_input.flip(-1)]) if flips else network_input
        logits = network_logits(cam_model, segmenter, views)
        yield torch.stack([logits[0], logits[1].flip(-1)]) if flips else logits


def scale_plan(size: int, patch: int, spec: PredictSpec) -> Sequence[tuple[int, bool]]:
    """(side in pixels, whether flipped too) of each scale. Sides are rounded to whole patches; S = 320 needs no rounding."""
    return [
        (max(patch, round(size * scale / patch) * patch), not (spec.flip == "not_at_1" and scale == 1.0))
        for scale in spec.scales
    ]


def network_logits(cam_model: CamModel, segmenter: Segmenter, views: Tensor) -> Tensor:
    """views (V, 3, s, s) network input → logits (V, C+1, h, w)."""
    encoded = cam_model.encode(views)
    return segmenter(cam_model.layers(encoded), encoded.activations.grid).logits.float()  # type: ignore[no-any-return]


def _resized(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
