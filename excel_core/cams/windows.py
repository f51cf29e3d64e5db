"""CAMs of a photo seen in several views: at several sides, and through windows that slide over it (docs/upgrades.md).

Windows are squares of the network's input, half of each shared with its neighbours. They are named by (row, column) of their
first patch, row by row. Everything here is an average, so a class that no view sees stays at 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isqrt
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import CamSpec
from excel_core.models.clip import resize_pixels

if TYPE_CHECKING:
    from excel_core.cams.seeds import CamBatch

__all__ = [
    "attention_side",
    "blend_views",
    "blend_windows",
    "cut_windows",
    "window_corners",
    "window_values",
    "windows_at_once",
]

# Of all windows in a forward pass: 1.2 GiB of ViT-B's activations and attention, as measured. A CPU gains nothing by more.
MAX_PATCHES_ON_CPU = 1600
Grid = tuple[int, int]  # rows and columns of patches


def blend_views(
    network_input: Tensor, spec: CamSpec, patch: int, encode_view: "Callable[[Tensor], CamBatch]", at_once: int
) -> "CamBatch":
    """network input (B, 3, S, S) → CamBatch on the grid of S, its CAMs blended over the views that `spec` asks for.
    `encode_view` makes the CamBatch of views (B', 3, s, s), of `at_once` windows at most.

    Without windows: the mean of the whole photo's CAMs at `spec.scales` times S, and the attention at S. With windows of side
    w: the whole photo is seen at `spec.scales` times w; a window's CAM of a class counts as much as the whole photo shows the
    class there, at most; the result is the mean of both. The attention is that of the windows, (B, W, m, m), m = (w/patch)².
    """
    if spec.window is None and spec.scales == (1.0,):
        return encode_view(network_input)
    side = network_input.shape[-1]
    grid = (side // patch, side // patch)
    base = spec.window or side
    views = {scale: encode_view(_resized(network_input, round(base * scale / patch) * patch)) for scale in spec.scales}
    whole = torch.stack([_on_grid(batch.cams, grid) for batch in views.values()]).mean(dim=0)
    if spec.window is None:
        return replace(views[1.0], network_input=network_input, cams=whole)
    cams, attention = _window_cams(network_input, whole, spec.window // patch, patch, encode_view, at_once)
    return replace(views[1.0], network_input=network_input, cams=(whole + cams) / 2, attention=attention)


def _window_cams(
    network_input: Tensor, whole: Tensor, window: int, patch: int, encode_view: "Callable[[Tensor], CamBatch]", at_once: int
) -> tuple[Tensor, Tensor | None]:
    """network input (B, 3, S, S), CAMs of the whole photo (B, C, h, w), window in patches → CAMs (B, C, h, w) of the windows,
    blended, and their attention (B, W, m, m)."""
    B, grid = len(whole), (whole.shape[-2], whole.shape[-1])
    cam_parts, attention_parts = [], []
    for views in cut_windows(network_input, window * patch, patch, at_once):
        batch = encode_view(views)  # its activations are let go: those of all windows would be gigabytes
        cam_parts.append(batch.cams)
        attention_parts += [] if batch.attention is None else [batch.attention]
    cams = torch.cat(cam_parts).unflatten(0, (B, -1))
    # Min-max lets every window show its strongest patch as 1, also of a class that is elsewhere in the photo.
    limit = window_values(whole, window).amax(dim=(-2, -1), keepdim=True)
    attention = torch.cat(attention_parts).unflatten(0, (B, -1)) if attention_parts else None
    return blend_windows(cams * limit, grid), attention


def windows_at_once(spec: CamSpec, patch: int, device: torch.device) -> int:
    """Windows per forward pass: `spec.batch_size`, on a CPU no more than memory is meant for."""
    if spec.window is None or device.type != "cpu":
        return spec.batch_size
    return max(1, min(spec.batch_size, MAX_PATCHES_ON_CPU // (spec.window // patch) ** 2))


def cut_windows(network_input: Tensor, side: int, patch: int, at_once: int) -> Iterator[Tensor]:
    """network input (B, 3, S, S') → its windows (b, 3, side, side), b ≤ `at_once`: all of the first photo, then of the next."""
    grid = (network_input.shape[-2] // patch, network_input.shape[-1] // patch)
    corners = [
        (photo, top * patch, left * patch)
        for photo in range(len(network_input))
        for top, left in window_corners(grid, side // patch)
    ]
    for first in range(0, len(corners), at_once):
        batch = corners[first : first + at_once]
        yield torch.stack([network_input[photo, :, top : top + side, left : left + side] for photo, top, left in batch])


def window_corners(grid: Grid, window: int) -> list[tuple[int, int]]:
    """The windows of side `window` that cover a `grid`, all in patches; a side that is no longer than a window has one."""
    rows, columns = (_starts(length, window) for length in grid)
    return [(row, column) for row in rows for column in columns]


def _starts(length: int, window: int) -> list[int]:
    """Evenly from 0 to length - window, at most half a window apart."""
    last = max(0, length - window)
    steps = -(-last // max(1, window // 2))
    return [round(last * step / steps) for step in range(steps + 1)] if steps else [0]


def window_values(maps: Tensor, window: int) -> Tensor:
    """maps (..., K, h, w) → what each window holds (..., W, K, window, window)."""
    corners = window_corners((maps.shape[-2], maps.shape[-1]), window)
    return torch.stack([maps[..., top : top + window, left : left + window] for top, left in corners], dim=-4)


def blend_windows(values: Tensor, grid: Grid) -> Tensor:
    """values (..., W, K, window, window) of all windows of a grid → (..., K, h, w): the mean of the windows over each patch;
    a window counts the less the nearer the patch is to its edge."""
    window = values.shape[-1]
    ramp = torch.arange(1, window + 1, device=values.device, dtype=values.dtype)
    tent = torch.minimum(ramp, ramp.flip(0))
    weight = tent[:, None] * tent
    total = values.new_zeros(*values.shape[:-4], values.shape[-3], *grid)
    weights = values.new_zeros(grid)
    for index, (top, left) in enumerate(window_corners(grid, window)):
        rows, columns = slice(top, top + window), slice(left, left + window)
        total[..., rows, columns] += weight * values[..., index, :, :, :]
        weights[rows, columns] += weight
    return total / weights


def attention_side(attention: Tensor) -> int:
    """Attention (..., W, m, m) of windows → the side of a window in patches."""
    return isqrt(attention.shape[-1])


def _resized(network_input: Tensor, side: int) -> Tensor:
    """Smoothed, since it shrinks to a fraction."""
    return network_input if network_input.shape[-1] == side else resize_pixels(network_input, side, antialias=True)


def _on_grid(cams: Tensor, grid: Grid) -> Tensor:
    if cams.shape[-2:] == grid:
        return cams
    return F.interpolate(cams, size=grid, mode="bilinear", align_corners=False)
