"""Segmentation of large photos: logits enlarged one class at a time, so that all classes' never are at once (method 6)."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.config import PredictSpec
from excel_core.disk_maps import DiskMaps, is_large, strips
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.inference import averaging_size, logits_by_scale, network_logits

__all__ = ["enlarged_planes", "highest_plane", "logit_planes", "maps_of", "probabilities", "resized_labels"]

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Size = tuple[int, int]
WHOLE = slice(None)


def logit_planes(
    cam_model: CamModel,
    segmenter: Segmenter,
    image: Image,
    channels: Sequence[int],
    spec: PredictSpec | None = None,
    folder: Path | None = None,
) -> Iterator[Tensor]:
    """image (H, W, 3) uint8 → the logits (H, W) of each of `channels` in turn, as `segment_single_scale` gives them or, with a
    spec, `segment_multi_scale`. Temporary files are in `folder`."""
    size = (image.shape[0], image.shape[1])
    if spec is None:
        logits = network_logits(cam_model, segmenter, cam_model.prepare([image]))[0]
        yield from enlarged_planes(logits, channels, size)
        return
    by_scale, small = [logits[0] for logits in logits_by_scale(cam_model, segmenter, [image], spec)], averaging_size(size, spec)
    views = DiskMaps((sum(map(len, by_scale)), *small), folder)
    for channel in channels:
        for index, logits in enumerate(logits for scale in by_scale for logits in scale):
            views.write(WHOLE, WHOLE, _enlarged(logits[channel], small)[None].numpy(), slice(index, index + 1))
        mean = torch.empty(small)
        for rows in strips(small, 12 * views.shape[0]):
            by_view = torch.from_numpy(views.read(rows)).split([len(scale) for scale in by_scale])
            mean[rows] = torch.stack([part.mean(dim=0) for part in by_view]).mean(dim=0)
        yield mean if small == size else _enlarged(mean, size)


def enlarged_planes(logits: Tensor, channels: Sequence[int], size: Size) -> Iterator[Tensor]:
    """logits (C+1, h, w) → the plane (H, W) of `size` of each of `channels` in turn."""
    return (_enlarged(logits[channel], size) for channel in channels)


def resized_labels(logits: Tensor, size: Size) -> Labels:
    """logits (K, h, w), K ≤ 256 → labels (H, W) uint8 of `size`: the highest of the logits, resized bilinearly."""
    if is_large(size):
        return highest_plane((_enlarged(plane, size) for plane in logits), size)
    full = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    return full.argmax(dim=0).cpu().numpy().astype(np.uint8)


def highest_plane(planes: Iterable[Tensor], size: Size, folder: Path | None = None) -> Labels:
    """planes (H, W) of `size` → which of them is the highest (H, W) uint8, the first where several are. One is held at a
    time."""
    labels, best = np.zeros(size, np.uint8), DiskMaps((1, *size), folder)
    for index, plane in enumerate(planes):
        for rows in strips(size, 16):
            logits = plane[rows].numpy()
            if index:
                highest = best.read(rows)[0]
                labels[rows][logits > highest] = index
                logits = np.maximum(logits, highest)
            best.write(rows, WHOLE, logits[None])
    return labels


def maps_of(planes: Iterable[Tensor], count: int, size: Size, folder: Path | None = None) -> DiskMaps:
    """`count` planes (H, W) of `size` → maps on disk."""
    maps = DiskMaps((count, *size), folder)
    for index, plane in enumerate(planes):
        maps.write(WHOLE, WHOLE, plane[None].numpy(), slice(index, index + 1))
    return maps


def probabilities(logits: DiskMaps) -> DiskMaps:
    """logits (K, H, W) → their softmax over labels, in their place."""
    for rows in strips(logits.size, 12 * logits.shape[0]):
        logits.write(rows, WHOLE, torch.softmax(torch.from_numpy(logits.read(rows)), dim=0).numpy())
    return logits


def _enlarged(plane: Tensor, size: Size) -> Tensor:
    """plane (h, w) → (H, W) of `size`, on the CPU."""
    return F.interpolate(plane[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].cpu()
