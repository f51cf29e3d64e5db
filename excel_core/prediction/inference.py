"""Segment images with the trained head: single scale, or several scales with flips averaged on logits (method 6).

Images of any sizes are encoded together. Beside others, an image's logits differ in their last bits.
"""

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
Image = NDArray[np.uint8]
MAX_TOKENS = 2**14  # of all views that are encoded at once: their attention takes memory


def segment_single_scale(cam_model: CamModel, segmenter: Segmenter, images: Sequence[Image]) -> list[Tensor]:
    """images (H, W, 3) uint8 → logits (C+1, H, W) each, background first: resized to S x S once, no flip."""
    logits = network_logits(cam_model, segmenter, cam_model.prepare(images))
    return [_resized(one[None], _size(image))[0] for one, image in zip(logits, images, strict=True)]


def segment_multi_scale(cam_model: CamModel, segmenter: Segmenter, images: Sequence[Image], spec: PredictSpec) -> list[Tensor]:
    """images (H, W, 3) uint8 → mean logits (C+1, H, W) each over `spec.scales`, each scale the mean over its flips.

    Every scale is resized from the photo itself. `flip="not_at_1"` forgets the flip at scale 1.0, as the published VOC
    evaluation does. Logits are averaged at `spec.average_at` of the photo's sides, then enlarged.
    """
    sizes = [averaging_size(_size(image), spec) for image in images]
    # The mean of each scale first: a scale without its flip weighs as much as the others.
    by_scale = [
        [_resized(views, size).mean(dim=0) for views, size in zip(logits, sizes, strict=True)]
        for logits in logits_by_scale(cam_model, segmenter, images, spec)
    ]
    means = [torch.stack(of_image).mean(dim=0) for of_image in zip(*by_scale, strict=True)]
    pairs = zip(means, images, strict=True)
    return [mean if mean.shape[1:] == _size(image) else _resized(mean[None], _size(image))[0] for mean, image in pairs]


def _size(image: Image) -> Size:
    return image.shape[0], image.shape[1]


def averaging_size(size: Size, spec: PredictSpec) -> Size:
    """The size (H, W) at which the logits of several scales are averaged, of a photo of `size`."""
    return max(1, int(spec.average_at * size[0])), max(1, int(spec.average_at * size[1]))


def logits_by_scale(cam_model: CamModel, segmenter: Segmenter, images: Sequence[Image], spec: PredictSpec) -> Iterator[Tensor]:
    """images (H, W, 3) uint8 → logits (B, V, C+1, h, w) of each of `spec.scales`; V is 2 where there is a flip, turned back."""
    pixels = [None if is_large(image.shape) else as_pixels(image, cam_model.clip.device) for image in images]
    for side, flips in scale_plan(cam_model.spec.image_size, cam_model.clip.patch, spec):
        inputs = [
            cam_model.prepare_image(image, side) if photo is None else cam_model.prepare_pixels(photo, side)
            for image, photo in zip(images, pixels, strict=True)
        ]
        straight = torch.cat(inputs)
        views = torch.cat([straight, straight.flip(-1)]) if flips else straight
        tokens = (side // cam_model.clip.patch) ** 2
        parts = views.split(max(2, MAX_TOKENS // tokens))
        logits = torch.cat([network_logits(cam_model, segmenter, part) for part in parts])
        yield torch.stack([logits[: len(images)], logits[len(images) :].flip(-1)], dim=1) if flips else logits[:, None]


def scale_plan(size: int, patch: int, spec: PredictSpec) -> Sequence[tuple[int, bool]]:
    """(side in pixels, whether flipped too) of each scale. Published sides need not be whole patches: the CLIP cuts off what is
    left over, and the logits of the others are stretched over the photo."""
    whole = spec.sides == "whole_patches"
    sides = [round(size * scale / patch) * patch if whole else int(size * scale) for scale in spec.scales]
    flips = [not (spec.flip == "not_at_1" and scale == 1.0) for scale in spec.scales]
    return [(max(patch, side), flip) for side, flip in zip(sides, flips, strict=True)]


def network_logits(cam_model: CamModel, segmenter: Segmenter, views: Tensor) -> Tensor:
    """views (V, 3, s, s) network input → logits (V, C+1, h, w)."""
    encoded = cam_model.encode(views, last_block=segmenter.reads_last_block)
    return segmenter(*cam_model.segmenter_input(encoded)).logits.float()  # type: ignore[no-any-return]


def _resized(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
