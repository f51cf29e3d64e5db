# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""Pixel-adaptive refinement on a GPU (method 4): affinities of pixels to their neighbours, and diffusion steps, of many
pictures of different sizes at once.

A program works on a tile of one picture. Colours (pixels, 4) and maps (pixels, K) hold a pixel's values side by side, so that
one read fetches a neighbour's. Neighbours outside are the nearest pixel inside. The affinities of a tile lie together,
neighbour by neighbour. A step reads them once for all K maps: 96 bytes a pixel in half precision, most of what a step moves.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from excel_core.kernels.gpu import TILE, WARPS, PackedSizes
from excel_core.kernels.tiles_triton import tile_pixels

__all__ = ["refine_packed"]


def refine_packed(
    colours: Tensor,
    maps: Tensor,
    sizes: PackedSizes,
    dilations: tuple[int, ...],
    position: tuple[tuple[float, ...], tuple[float, ...]],
    width: float,
    iterations: int,
    precision: str,
) -> Tensor:
    """colours (pixels, 4) float32, the last of them 0; maps (pixels, K) float32, K a power of 2 → refined maps (pixels, K);
    `maps` is work space. Affinities are float32, or float16 where `precision` is fp16.

    `position`: weights by distance, for each dilation, of the neighbours beside the pixel, and of those across its corners;
    `width` of the kernel in standard deviations: see cams/par.py. Nothing waits for the device, and no shape depends on values.
    """
    if not iterations:
        return maps
    dtype = torch.float16 if precision == "fp16" else torch.float32
    neighbours = 8 * len(dilations)
    weights = torch.empty(sizes.tiles * neighbours * TILE[0] * TILE[1], dtype=dtype, device=maps.device)
    grid = (sizes.most_tiles, len(sizes))
    constants = {"DILATIONS": dilations, "STEPS": len(dilations), "ROWS": TILE[0], "COLUMNS": TILE[1], "num_warps": WARPS}
    _affinities[grid](colours, weights, sizes.table, width, BESIDE=position[0], CORNER=position[1], **constants)
    refined = torch.empty_like(maps)
    for _ in range(iterations):
        _diffuse[grid](maps, weights, refined, sizes.table, K=maps.shape[1], **constants)
        maps, refined = refined, maps
    return maps


@triton.jit
def _pick(VALUES: tl.constexpr, COUNT: tl.constexpr, index):
    """VALUES[index], of an index that is not known before the kernel runs."""
    value = VALUES[0]
    for i in tl.static_range(1, COUNT):
        value = tl.where(index == i, VALUES[i], value)
    return value


@triton.jit
def _neighbour(y, x, height, width, dilation, NUMBER: tl.constexpr):
    """Place in the picture of the pixels' neighbour NUMBER, 0 to 8 from above left to below right; 4 is the pixel itself."""
    row = tl.minimum(tl.maximum(y + (NUMBER // 3 - 1) * dilation, 0), height - 1)
    column = tl.minimum(tl.maximum(x + (NUMBER % 3 - 1) * dilation, 0), width - 1)
    return row * width + column


@triton.jit
def _affinities(
    colours,
    weights,
    table,
    kernel_width,
    BESIDE: tl.constexpr,
    CORNER: tl.constexpr,
    DILATIONS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """softmax_n(-mean_ch (|I_n - I| / (std_n I + 1e-8) / width)^2) + position_n; the std is the neighbours', unbiased."""
    first, height, width, first_tile, y, x, _ = tile_pixels(table, ROWS, COLUMNS)
    if tl.program_id(0) < tl.cdiv(height, ROWS) * tl.cdiv(width, COLUMNS):
        picture = colours + 4 * first + tl.arange(0, 4)[None, :]
        here = tl.load(picture + 4 * _neighbour(y, x, height, width, 0, 4)[:, None])
        # Differences to the pixel itself, so that little is lost where colours are alike.
        mean = tl.zeros_like(here)
        for i in range(STEPS):
            dilation = _pick(DILATIONS, STEPS, i)
            for n in tl.static_range(9):
                if n != 4:
                    mean += tl.load(picture + 4 * _neighbour(y, x, height, width, dilation, n)[:, None]) - here
        mean = mean / (8 * STEPS)
        variance = tl.zeros_like(here)
        for i in range(STEPS):
            dilation = _pick(DILATIONS, STEPS, i)
            for n in tl.static_range(9):
                if n != 4:
                    off_mean = tl.load(picture + 4 * _neighbour(y, x, height, width, dilation, n)[:, None]) - here - mean
                    variance += off_mean * off_mean
        scale = 1.0 / ((tl.sqrt_rn(variance / (8 * STEPS - 1)) + 1e-8) * kernel_width)
        # The highest logit and the sum of all exponentials relative to it, in one pass.
        highest = tl.full([ROWS * COLUMNS], float("-inf"), tl.float32)
        total = tl.zeros([ROWS * COLUMNS], tl.float32)
        for i in range(STEPS):
            dilation = _pick(DILATIONS, STEPS, i)
            for n in tl.static_range(9):
                if n != 4:
                    off = tl.load(picture + 4 * _neighbour(y, x, height, width, dilation, n)[:, None]) - here
                    logit = tl.sum(off * scale * (off * scale), axis=1) / -3.0
                    above = tl.maximum(highest, logit)
                    total = total * tl.exp(highest - above) + tl.exp(logit - above)
                    highest = above
        place = weights + (first_tile + tl.program_id(0)) * (8 * STEPS * ROWS * COLUMNS) + tl.arange(0, ROWS * COLUMNS)
        for i in range(STEPS):
            dilation = _pick(DILATIONS, STEPS, i)
            beside, corner = _pick(BESIDE, STEPS, i), _pick(CORNER, STEPS, i)
            for n in tl.static_range(9):
                if n != 4:
                    off = tl.load(picture + 4 * _neighbour(y, x, height, width, dilation, n)[:, None]) - here
                    logit = tl.sum(off * scale * (off * scale), axis=1) / -3.0
                    weight = tl.exp(logit - highest) / total + (beside if n % 2 else corner)
                    tl.store(place, weight.to(weights.dtype.element_ty))
                    place += ROWS * COLUMNS


@triton.jit
def _diffuse(
    maps,
    weights,
    refined,
    table,
    K: tl.constexpr,
    DILATIONS: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Each pixel's maps become the sum of its neighbours', weighted by affinity."""
    first, height, width, first_tile, y, x, inside = tile_pixels(table, ROWS, COLUMNS)
    if tl.program_id(0) < tl.cdiv(height, ROWS) * tl.cdiv(width, COLUMNS):
        picture = maps + K * first + tl.arange(0, K)[None, :]
        place = weights + (first_tile + tl.program_id(0)) * (8 * STEPS * ROWS * COLUMNS) + tl.arange(0, ROWS * COLUMNS)
        total = tl.zeros([ROWS * COLUMNS, K], tl.float32)
        for i in range(STEPS):
            dilation = _pick(DILATIONS, STEPS, i)
            for n in tl.static_range(9):
                if n != 4:
                    weight = tl.load(place).to(tl.float32)
                    there = tl.load(picture + K * _neighbour(y, x, height, width, dilation, n)[:, None])
                    total += weight[:, None] * there
                    place += ROWS * COLUMNS
        here = K * (y * width + x)[:, None] + tl.arange(0, K)[None, :]
        tl.store(refined + K * first + here, total, mask=inside[:, None])
