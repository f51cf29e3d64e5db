"""Class-aware attention affinity: CAMs spread along the frozen encoder's attention (method 4), static or dynamic."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from excel_core.cams.patch_text import minmax
from excel_core.cams.windows import attention_side, blend_windows, window_values
from excel_core.config import AffinitySpec, CalibrationSpec
from excel_core.kernels.gpu import has_triton
from excel_core.models.calibration import MIXING

__all__ = [
    "affinity_cams", "affinity_matrix", "box_masks", "dynamic_attention", "mean_attention", "rescaled", "scale_attention",
    "upsample_with_background",
]  # fmt: skip

MAX_SIDE_OF_KERNEL = 64  # patches: a program holds a whole map


def scale_attention(attention: Tensor, heads: int, calibration: CalibrationSpec, spec: AffinitySpec) -> Tensor:
    """attention (A, B, N, N) head means of the last A blocks → patches only (A, B, M, M), in the spec's scale.

    'mean': the mean over heads everywhere. 'published': the sum over heads in the last `depth` blocks, which are calibrated.
    """
    patches = attention[:, :, 1:, 1:]
    if spec.scale == "mean" or calibration.attention not in MIXING:
        return patches
    # The published code averages heads in plain blocks and sums them in calibrated ones, which so count H times.
    weights = patches.new_ones(len(patches), 1, 1, 1)
    weights[-calibration.depth :] = heads
    return patches * weights


def mean_attention(scaled: Tensor, spec: AffinitySpec) -> Tensor:
    """scaled (A, B, M, M) → mean over the last `spec.layers` blocks (B, M, M)."""
    return scaled[-spec.layers :].mean(dim=0)


def dynamic_attention(scaled: Tensor, probability: Tensor, spec: AffinitySpec) -> Tensor:
    """scaled (A, B, M, M), probability R̂ (B, M, M) → (B, M, M): the mean of chosen blocks times R̂ (method 5).

    Of the last `spec.layers` blocks, those are chosen for an image whose sum of (R̂ - A_l) is at most the mean of that sum.
    """
    layers = scaled[-spec.layers :]
    excess = (probability - layers).sum(dim=(-1, -2))
    # A mask instead of a list, so that images which choose different blocks stay one batch.
    chosen = (excess <= excess.mean(dim=0)).to(layers.dtype)
    mean = torch.einsum("lb,lbmn->bmn", chosen, layers) / (chosen.sum(dim=0) + 1e-5)[:, None, None]
    return mean * probability


def affinity_matrix(attention: Tensor, spec: AffinitySpec) -> Tensor:
    """attention (..., M, M) positive → symmetric affinity: Sinkhorn steps, then ((M + M^T) / 2)^2."""
    matrix = attention
    # Each Sinkhorn step scales columns, then rows, to sum to 1, so that no patch attracts all others.
    for _ in range(spec.sinkhorn_steps):
        matrix = matrix / matrix.sum(dim=-2, keepdim=True)
        matrix = matrix / matrix.sum(dim=-1, keepdim=True)
    matrix = (matrix + matrix.mT) / 2
    return matrix @ matrix


def box_masks(cams: Tensor, threshold: float) -> Tensor:
    """cams (..., h, w) in [0, 1] → bool (..., h, w): bounding boxes of each map's connected regions above threshold x maximum.

    On a CPU by scipy; elsewhere on the device itself, without waiting for it: on a GPU with Triton by a kernel.
    """
    maps = cams.reshape(-1, *cams.shape[-2:])
    # As published: truncated to 8 bits, and a box's exclusive ends clipped to h-1 and w-1, so the last row and column stay out.
    grey = (maps.float() * 255).to(torch.uint8)
    above = grey > (threshold * grey.amax(dim=(1, 2), keepdim=True).double()).floor()
    if cams.device.type == "cpu":
        boxes = _boxes_by_region(above)
    elif has_triton(cams.device) and max(cams.shape[-2:]) <= MAX_SIDE_OF_KERNEL:
        from excel_core.kernels.boxes_triton import boxes_of_regions

        boxes = boxes_of_regions(above)
    else:
        boxes = _boxes_by_reachability(above)
    return boxes.reshape(cams.shape)


def _boxes_by_region(above: Tensor) -> Tensor:
    """above (K, h, w) bool → boxes (K, h, w) bool on the CPU, region by region."""
    _, h, w = above.shape
    boxes = np.zeros(above.shape, dtype=bool)
    for mask, box in zip(above.numpy(), boxes, strict=True):
        regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
        for rows, columns in ndimage.find_objects(regions):
            box[rows.start : min(rows.stop, h - 1), columns.start : min(columns.stop, w - 1)] = True
    return torch.from_numpy(boxes)


def _boxes_by_reachability(above: Tensor) -> Tensor:
    """The same in a fixed number of steps, log2 M products of M x M matrices, M = h*w."""
    K, h, w = above.shape
    grid = torch.meshgrid(*(torch.arange(side, device=above.device) for side in (h, w)), indexing="ij")
    rows, columns = (coordinate.flatten() for coordinate in grid)
    inside = above.flatten(1)
    touching = ((rows[:, None] - rows).abs() <= 1) & ((columns[:, None] - columns).abs() <= 1)
    reachable = touching & inside[:, :, None] & inside[:, None]
    # Squaring doubles the length of the paths. The product counts paths, up to M, which float16 holds exactly below 2048.
    dtype = torch.float16 if above.is_cuda and h * w < 2048 else torch.float32
    for _ in range((h * w - 1).bit_length()):
        reachable = (reachable.to(dtype) @ reachable.to(dtype)) > 0
    boxes = inside[:, :, None].expand_as(reachable).clone()  # [k, i, j]: whether j is in the box of the region of i
    for coordinate, end in ((rows, h - 1), (columns, w - 1)):
        first = torch.where(reachable, coordinate, max(h, w)).amin(dim=2, keepdim=True)
        last = torch.where(reachable, coordinate, -1).amax(dim=2, keepdim=True)
        boxes &= (coordinate >= first) & (coordinate <= last) & (coordinate < end)
    return boxes.any(dim=1).reshape(K, h, w)


def affinity_cams(cams: Tensor, attention: Tensor, spec: AffinitySpec) -> Tensor:
    """cams (..., K, h, w) in [0, 1] of an image's classes, attention (..., M, M) → refined CAMs (..., K, h, w), before min-max:
    each class' CAM times the affinity whose columns outside the class' boxes are zero. Attention (..., W, m, m) of windows
    refines what each window holds, and the windows are blended."""
    matrix = affinity_matrix(attention, spec)
    is_windowed = attention.ndim == cams.ndim
    # On a GPU, a large map's boxes would take the square of its patches.
    on_host = is_windowed and max(cams.shape[-2:]) > MAX_SIDE_OF_KERNEL
    boxes = box_masks(cams.cpu() if on_host else cams, spec.threshold).to(cams.device)
    # Zero columns of the matrix act as zeros of the CAM, so one matrix serves all classes.
    masked = boxes * cams
    if not is_windowed:
        return (masked.flatten(-2) @ matrix.mT).reshape(cams.shape)
    parts = window_values(masked, attention_side(attention))
    refined = (parts.flatten(-2) @ matrix.mT).reshape(parts.shape)
    return blend_windows(refined, (cams.shape[-2], cams.shape[-1]))


def upsample_with_background(cams: Tensor, size: tuple[int, int], power: float = 1.0, rescale: bool = True) -> Tensor:
    """cams (..., K, h, w) → maps (..., K+1, H, W) of `size`: background (1 - max)^power first, then the CAMs, scaled by min-max
    (with `rescale`) and resized bilinearly."""
    if rescale:
        cams = rescaled(cams)
    full = F.interpolate(cams.reshape(-1, 1, *cams.shape[-2:]), size=size, mode="bilinear", align_corners=False)
    full = full.reshape(*cams.shape[:-2], *size)
    background = (1 - full.amax(dim=-3, keepdim=True)) ** power
    return torch.cat([background, full], dim=-3)


def rescaled(cams: Tensor) -> Tensor:
    """cams (..., h, w), each map scaled by min-max to [0, 1]."""
    return minmax(cams.flatten(-2), dim=-1).reshape(cams.shape)
