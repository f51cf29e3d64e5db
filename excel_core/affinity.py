"""Class-aware attention affinity: CAMs spread along the frozen attention (method 4), static and dynamic."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from excel_core.cams import minmax
from excel_core.config import AffinitySpec, CalibrationSpec

__all__ = [
    "affinity_cams", "affinity_matrix", "box_mask", "dynamic_attention", "mean_attention", "scale_attention",
    "upsample_with_background",
]  # fmt: skip


def scale_attention(attention: Tensor, heads: int, calibration: CalibrationSpec, spec: AffinitySpec) -> Tensor:
    """attention (A, B, N, N) head means of the last A blocks → patches only (A, B, M, M), in the spec's scale.

    'published': the calibrated (last `depth`) blocks count as the sum over heads, earlier ones as the mean.
    """
    patches = attention[:, :, 1:, 1:]
    if spec.scale == "mean" or calibration.attention != "svc":
        return patches
    weights = patches.new_ones(len(patches), 1, 1, 1)
    weights[-calibration.depth :] = heads
    return patches * weights


def mean_attention(scaled: Tensor, spec: AffinitySpec) -> Tensor:
    """scaled (A, B, M, M) → mean over the last `spec.layers` blocks (B, M, M)."""
    return scaled[-spec.layers :].mean(dim=0)


def dynamic_attention(scaled: Tensor, probability: Tensor, spec: AffinitySpec) -> Tensor:
    """scaled (A, B, M, M), probability R̂ (B, M, M) → (B, M, M): chosen layers' mean times R̂ (method 5).

    Of the last `spec.layers` blocks an image keeps those whose sum of (R̂ - A_l) is at most the mean of that sum.
    """
    layers = scaled[-spec.layers :]
    excess = (probability - layers).sum(dim=(-1, -2))
    chosen = (excess <= excess.mean(dim=0)).to(layers.dtype)
    mean = torch.einsum("lb,lbmn->bmn", chosen, layers) / (chosen.sum(dim=0) + 1e-5)[:, None, None]
    return mean * probability


def affinity_matrix(attention: Tensor, spec: AffinitySpec) -> Tensor:
    """attention (..., M, M) positive → symmetric two-step affinity M <- ((M + M^T)/2)^2 after Sinkhorn steps."""
    matrix = attention
    for _ in range(spec.sinkhorn_steps):
        matrix = matrix / matrix.sum(dim=-2, keepdim=True)
        matrix = matrix / matrix.sum(dim=-1, keepdim=True)
    matrix = (matrix + matrix.mT) / 2
    return matrix @ matrix


def box_mask(cam: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """cam (h, w) in [0, 1] → union of the bounding boxes of its connected regions above threshold x maximum.

    In 8 bits, as published; a box's exclusive ends are clipped to h-1 and w-1, so the last row and column stay out.
    """
    grey = (cam * 255).astype(np.uint8)
    regions, _ = ndimage.label(grey > int(threshold * grey.max()), structure=np.ones((3, 3)))
    mask = np.zeros(cam.shape, dtype=bool)
    h, w = cam.shape
    for rows, columns in ndimage.find_objects(regions):
        mask[rows.start : min(rows.stop, h - 1), columns.start : min(columns.stop, w - 1)] = True
    return mask


def affinity_cams(cams: Tensor, attention: Tensor, spec: AffinitySpec) -> Tensor:
    """One image: cams (K, h, w) in [0, 1] of its classes, attention (M, M) → refined CAMs (K, h, w), before min-max.

    Each class multiplies by the affinity whose columns outside its boxes are zero.
    """
    K, h, w = cams.shape
    matrix = affinity_matrix(attention, spec)
    boxes = np.stack([box_mask(cam, spec.threshold) for cam in cams.float().cpu().numpy()])
    kept = torch.from_numpy(boxes).to(cams).reshape(K, h * w) * cams.reshape(K, h * w)
    return (kept @ matrix.mT).reshape(K, h, w)


def upsample_with_background(cams: Tensor, size: tuple[int, int], power: float = 1.0, rescale: bool = True) -> Tensor:
    """cams (K, h, w) → (K+1, H, W): min-max each (when `rescale`), resize bilinearly, background (1 - max)^power first."""
    if rescale:
        cams = minmax(cams.flatten(1), dim=1).reshape(cams.shape)
    full = F.interpolate(cams[None], size=size, mode="bilinear", align_corners=False)[0]
    background = (1 - full.amax(dim=0, keepdim=True)) ** power
    return torch.cat([background, full])
