"""Class-aware attention affinity: CAMs spread along the frozen encoder's attention (method 4), static or dynamic."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from excel_core.cams.patch_text import minmax
from excel_core.cams.windows import attention_side, blend_windows, window_values
from excel_core.config import AffinitySpec, CalibrationSpec, RefineSpec
from excel_core.kernels.gpu import has_triton
from excel_core.models.calibration import MIXING

__all__ = [
    "affinity_cams", "affinity_matrix", "block_excess", "box_masks", "chosen_blocks", "dynamic_attention", "guided_cams",
    "kept_layers", "mean_attention", "rescaled", "scale_attention", "upsample_with_background", "upsampled",
    "with_background", "without_boxes",
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

    Of the last `spec.dynamic_layers` blocks, or `spec.layers`, those are chosen for an image whose sum of (R̂ - A_l) is at most
    the mean of that sum.
    """
    layers = scaled[-(spec.dynamic_layers or spec.layers) :]
    # A mask instead of a list, so that images which choose different blocks stay one batch.
    chosen = chosen_blocks(block_excess(layers, probability)).to(layers.dtype)
    mean = torch.einsum("lb,lbmn->bmn", chosen, layers) / (chosen.sum(dim=0) + 1e-5)[:, None, None]
    return mean * probability


def block_excess(layers: Tensor, probability: Tensor) -> Tensor:
    """layers (L, B, M, M), probability R̂ (B, M, M) → (L, B): the sum of R̂ - A_l, signed as published."""
    return (probability - layers).sum(dim=(-1, -2))


def chosen_blocks(excess: Tensor) -> Tensor:
    """excess (L, B) → bool (L, B): blocks whose excess is at most the image's mean."""
    return excess <= excess.mean(dim=0)


def kept_layers(spec: AffinitySpec) -> int:
    """How many last blocks' attention the refinement looks at, with a learnt relation or without."""
    return max(spec.layers, spec.dynamic_layers or 0)


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
    # Zero columns of the matrix act as zeros of the CAM, so one matrix serves all classes.
    masked = _inside_boxes(cams, spec.threshold, is_windowed) if spec.boxes else cams
    if not is_windowed:
        return (masked.flatten(-2) @ matrix.mT).reshape(cams.shape)
    parts = window_values(masked, attention_side(attention))
    refined = (parts.flatten(-2) @ matrix.mT).reshape(parts.shape)
    return blend_windows(refined, (cams.shape[-2], cams.shape[-1]))


def _inside_boxes(cams: Tensor, threshold: float, is_windowed: bool) -> Tensor:
    """cams (..., K, h, w), 0 outside their `box_masks`."""
    # On a GPU, a large map's boxes would take the square of its patches.
    on_host = is_windowed and max(cams.shape[-2:]) > MAX_SIDE_OF_KERNEL
    return box_masks(cams.cpu() if on_host else cams, threshold).to(cams.device) * cams


def guided_cams(cams: Tensor, guidance: Tensor, spec: AffinitySpec) -> Tensor:
    """cams (..., K, h, w), guidance (..., K, h, w) → CAMs times guidance, to be spread without boxes: boxes are drawn here,
    around strong regions of the CAMs as they were, and what lies outside is 0 (peers.md 4.3)."""
    guided = cams * guidance
    return box_masks(cams, spec.threshold) * guided if spec.enabled and spec.boxes else guided


def without_boxes(spec: RefineSpec) -> RefineSpec:
    """The spec for `guided_cams`."""
    return spec.model_copy(update={"affinity": spec.affinity.model_copy(update={"boxes": False})})


def upsample_with_background(
    cams: Tensor, size: tuple[int, int], power: float = 1.0, rescale: bool = True, epsilon: float = 0.0, half: bool = False
) -> Tensor:
    """cams (..., K, h, w) → maps (..., K+1, H, W) of `size`: background (1 - max)^power first, then the CAMs, scaled by min-max
    (with `rescale`, see `rescaled`) and resized bilinearly; with `half`, rounded to float16 before the background is made."""
    full = upsampled(rescaled(cams, epsilon) if rescale else cams, size)
    return with_background(full.half() if half else full, power)


def upsampled(cams: Tensor, size: tuple[int, int]) -> Tensor:
    """cams (..., K, h, w) → (..., K, H, W) of `size`, bilinearly."""
    full = F.interpolate(cams.reshape(-1, 1, *cams.shape[-2:]), size=size, mode="bilinear", align_corners=False)
    return full.reshape(*cams.shape[:-2], *size)


def with_background(cams: Tensor, power: float) -> Tensor:
    """cams (..., K, H, W) in [0, 1] → (..., K+1, H, W) float32, background (1 - max)^power first, computed in the type of
    `cams`. Without a class all is background."""
    highest = cams.amax(dim=-3, keepdim=True) if cams.shape[-3] else cams.new_zeros(*cams.shape[:-3], 1, *cams.shape[-2:])
    background = (1 - highest) ** power
    return torch.cat([background, cams], dim=-3).float()


def rescaled(cams: Tensor, epsilon: float = 0.0) -> Tensor:
    """cams (..., h, w), each map scaled by min-max to [0, 1]; `epsilon` is added to its range first."""
    maps = cams.flatten(-2)
    if epsilon == 0:
        return minmax(maps, dim=-1).reshape(cams.shape)
    shifted = maps - maps.amin(dim=-1, keepdim=True)
    return (shifted / (shifted.amax(dim=-1, keepdim=True) + epsilon)).reshape(cams.shape)
