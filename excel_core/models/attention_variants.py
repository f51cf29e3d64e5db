"""Attention of later training-free methods for the calibrated path: NACLIP's, ResCLIP's and ProxyCLIP's (docs/upgrades.md).

Each map mixes the values of one block, as A_svc does in `calibration.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import CalibrationSpec
from excel_core.errors import SettingError

__all__ = ["gaussian_window", "middle_blocks", "neighbour_attention", "proxy_attention", "with_middle_attention"]

Grid = tuple[int, int]  # rows and columns of patches


def neighbour_attention(keys: Tensor, grid: Grid, window: float) -> Tensor:
    """keys (B, H, 1+M, d) of a block, class token first, M = rows * columns of `grid` → its map (B, H, 1+M, 1+M) of rows that
    sum to 1: softmax(k k^T / sqrt(d) + ω), ω = exp(-|p - p'|² / (2 window²)) between patches p, p' and 0 where the class token
    is one of the two. `window` in patches. NACLIP (Hajimiri et al., WACV 2025)."""
    similarity = keys * keys.shape[-1] ** -0.5 @ keys.mT
    similarity[..., 1:, 1:] += gaussian_window(grid, window, similarity.device).to(similarity.dtype)
    return torch.softmax(similarity, dim=-1)


def gaussian_window(grid: Grid, window: float, device: torch.device | None = None) -> Tensor:
    """ω (M, M) float32 in (0, 1]: 1 on the diagonal, exp(-1/2) `window` patches away."""
    rows, columns = (torch.arange(side, dtype=torch.float32, device=device) for side in grid)
    points = torch.cartesian_prod(rows, columns).reshape(-1, 2)
    return torch.exp(torch.cdist(points, points).square() / (-2 * window**2))


def middle_blocks(count: int) -> range:
    """Of `count` blocks, which (0-based) have the attention that ResCLIP adds: 6 to 9 (1-based) of 12, others in proportion."""
    return range(max(0, count // 2 - 1), max(1, 3 * count // 4))


def with_middle_attention(weights: Tensor, middle: Tensor, spec: CalibrationSpec, heads: int) -> Tensor:
    """A block's map A (B, H or 1, N, N), the middle blocks' mean q-k attention (B, N, N) of rows that sum to 1 → τ [(1 - λ) A
    + λ `middle`], τ = `spec.middle_scale`, λ = `spec.middle_share`. ResCLIP (Yang et al., CVPR 2025), its residual attention.

    Where `spec.heads` is 'sum', A is a sum over `heads` maps, and `middle` counts as often.
    """
    copies = heads if spec.heads == "sum" else 1
    share = spec.middle_share
    return spec.middle_scale * ((1 - share) * weights + share * copies * middle[:, None])


def proxy_attention(features: Tensor, grid: Grid, target: Grid, beta: float = 1.2, gamma: float = 3.0) -> Tensor:
    """features (B, M', D) of a second encoder's patches on its `grid` (M' = rows * columns) → attention (B, M, M) between the M
    patches of the `target` grid, rows that sum to 1. The features are resized bilinearly where the grids differ.

    softmax(γ (S - β mean S)) over each row's entries that are not negative; S (M, M) are the cosines, their mean is over an
    image's. A row without any such entry attends to its own patch. ProxyCLIP (Lan et al., ECCV 2024). SettingError where
    `features` are not of the grid.
    """
    if features.shape[1] != grid[0] * grid[1]:
        raise SettingError(f"second encoder: expected {grid[0]} x {grid[1]} patches, got {features.shape[1]}")
    maps = features.mT.unflatten(-1, grid).float()
    if grid != target:
        maps = F.interpolate(maps, size=target, mode="bilinear", align_corners=False)
    unit = F.normalize(maps.flatten(2), dim=1)
    cosine = unit.mT @ unit
    scores = gamma * (cosine - beta * cosine.mean(dim=(1, 2), keepdim=True))
    own_patch = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    keep = (scores >= 0) | (own_patch & (scores < 0).all(dim=-1, keepdim=True))
    return torch.softmax(scores.masked_fill(~keep, float("-inf")), dim=-1)
