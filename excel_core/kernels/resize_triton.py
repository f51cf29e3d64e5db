# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""Bilinear resizing between grids of one size and packed pictures of any, on a GPU: as `torch.nn.functional.interpolate`."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from excel_core.kernels.gpu import TILE, WARPS, PackedSizes
from excel_core.kernels.tiles_triton import tile_pixels

__all__ = ["enlarged_cams", "enlarged_colours", "labels_of", "shrunk_photos"]

TILING = {"ROWS": TILE[0], "COLUMNS": TILE[1], "num_warps": WARPS}


def enlarged_cams(cams: Tensor, counts: Tensor, power: float, sizes: PackedSizes) -> Tensor:
    """cams (P, h, w, K), K a power of 2, map 0 empty, then those of each picture's classes, `counts` (P,) int32 of them → maps
    (pixels, K) float32 at the pictures' sizes: background (1 - max)^power, the classes', and -1 in the slots that are empty."""
    _, h, w, K = cams.shape
    maps = torch.empty(sizes.pixels, K, device=cams.device)
    grid = (sizes.most_tiles, len(sizes))
    _enlarge_cams[grid](cams.contiguous(), counts, maps, sizes.table, h, w, power, PLAIN=power == 1, K=K, **TILING)
    return maps


def enlarged_colours(network_input: Tensor, sizes: PackedSizes) -> Tensor:
    """network input (P, 3, S, S) → colours (pixels, 4) float32 at the pictures' sizes, corners aligned; the last value is 0."""
    _, _, S, S2 = network_input.shape
    colours = torch.empty(sizes.pixels, 4, device=network_input.device)
    source = torch.nn.functional.pad(network_input.float().permute(0, 2, 3, 1), (0, 1)).contiguous()
    _enlarge_colours[(sizes.most_tiles, len(sizes))](source, colours, sizes.table, S, S2, **TILING)
    return colours


def shrunk_photos(pixels: Tensor, sizes: PackedSizes, side: int) -> Tensor:
    """pixels (pixels, 3) uint8 → (P, 3, side, side) float32 in [0, 1], with half-pixel centres; nothing is smoothed."""
    squares = torch.empty(len(sizes), 3, side, side, device=pixels.device)
    blocks = triton.cdiv(side * side, 256)
    _shrink[(blocks, len(sizes))](pixels, squares, sizes.table, side, BLOCK=256)
    return squares


def labels_of(maps: Tensor, names: Tensor, sizes: PackedSizes) -> Tensor:
    """maps (pixels, K), names (P, K) uint8 of each picture's slots → (pixels,) uint8: the name of each pixel's highest map."""
    labels = torch.empty(sizes.pixels, dtype=torch.uint8, device=maps.device)
    _label[(sizes.most_tiles, len(sizes))](maps, names, labels, sizes.table, K=maps.shape[1], **TILING)
    return labels


@triton.jit
def _from_centres(position, size, source_size):
    """Where pixel `position` of `size` lies in the source, whose pixels are at whole numbers; centres of both at the half."""
    return tl.maximum((position + 0.5) * tl.div_rn(source_size.to(tl.float32), size.to(tl.float32)) - 0.5, 0.0)


@triton.jit
def _interpolated(source, y, x, h, w, k, K: tl.constexpr):
    """source (h, w, K), y and x (n,) float32 → (n, K) values of channels k, between the four pixels around."""
    above = tl.minimum(y.to(tl.int32), h - 1)
    left = tl.minimum(x.to(tl.int32), w - 1)
    below, right = tl.minimum(above + 1, h - 1), tl.minimum(left + 1, w - 1)
    down, across = (y - above.to(tl.float32))[:, None], (x - left.to(tl.float32))[:, None]
    upper = (1 - across) * tl.load(source + K * (above * w + left)[:, None] + k)
    upper += across * tl.load(source + K * (above * w + right)[:, None] + k)
    lower = (1 - across) * tl.load(source + K * (below * w + left)[:, None] + k)
    lower += across * tl.load(source + K * (below * w + right)[:, None] + k)
    return (1 - down) * upper + down * lower


@triton.jit(do_not_specialize=["h", "w"])
def _enlarge_cams(
    cams,
    counts,
    maps,
    table,
    h,
    w,
    power,
    PLAIN: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    first, height, width, _, y, x, inside = tile_pixels(table, ROWS, COLUMNS)
    k = tl.arange(0, K)[None, :]
    is_class = (k > 0) & (k <= tl.load(counts + tl.program_id(1)))
    source = cams + tl.program_id(1).to(tl.int64) * h * w * K
    full = _interpolated(source, _from_centres(y, height, h), _from_centres(x, width, w), h, w, k, K)
    background = 1 - tl.max(tl.where(is_class, full, 0.0), axis=1)
    if not PLAIN:
        background = tl.exp2(power * tl.log2(tl.maximum(background, 0.0)))
    values = tl.where(k == 0, background[:, None], tl.where(is_class, full, -1.0))
    tl.store(maps + K * first + K * (y * width + x)[:, None] + k, values, mask=inside[:, None])


@triton.jit(do_not_specialize=["h", "w"])
def _enlarge_colours(source, colours, table, h, w, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    first, height, width, _, y, x, inside = tile_pixels(table, ROWS, COLUMNS)
    k = tl.arange(0, 4)[None, :]
    picture = source + tl.program_id(1).to(tl.int64) * h * w * 4
    vertical = tl.div_rn((h - 1).to(tl.float32), tl.maximum(height - 1, 1).to(tl.float32))
    horizontal = tl.div_rn((w - 1).to(tl.float32), tl.maximum(width - 1, 1).to(tl.float32))
    values = _interpolated(picture, y * vertical, x * horizontal, h, w, k, 4)
    tl.store(colours + 4 * first + 4 * (y * width + x)[:, None] + k, values, mask=inside[:, None])


@triton.jit(do_not_specialize=["side"])
def _shrink(pixels, squares, table, side, BLOCK: tl.constexpr):
    entry = table + 4 * tl.program_id(1)
    picture = pixels + 3 * tl.load(entry)
    height, width = tl.load(entry + 1).to(tl.int32), tl.load(entry + 2).to(tl.int32)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = _from_centres(place // side, side, height), _from_centres(place % side, side, width)
    above, left = tl.minimum(y.to(tl.int32), height - 1), tl.minimum(x.to(tl.int32), width - 1)
    below, right = tl.minimum(above + 1, height - 1), tl.minimum(left + 1, width - 1)
    down, across = y - above.to(tl.float32), x - left.to(tl.float32)
    square = squares + tl.program_id(1).to(tl.int64) * 3 * side * side + place
    for channel in tl.static_range(3):
        upper = (1 - across) * _unit(picture + 3 * (above * width + left) + channel)
        upper += across * _unit(picture + 3 * (above * width + right) + channel)
        lower = (1 - across) * _unit(picture + 3 * (below * width + left) + channel)
        lower += across * _unit(picture + 3 * (below * width + right) + channel)
        tl.store(square + channel * side * side, (1 - down) * upper + down * lower, mask=place < side * side)


@triton.jit
def _unit(place):
    """8 bits → [0, 1]."""
    value = tl.load(place).to(tl.float32)
    return tl.div_rn(value, tl.full(value.shape, 255.0, tl.float32))


@triton.jit
def _label(maps, names, labels, table, K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    first, _, width, _, y, x, inside = tile_pixels(table, ROWS, COLUMNS)
    k = tl.arange(0, K)
    values = tl.load(maps + K * first + K * (y * width + x)[:, None] + k[None, :], mask=inside[:, None], other=0.0)
    winner = tl.argmax(values, axis=1)
    name = tl.load(names + K * tl.program_id(1) + k).to(tl.int32)
    label = tl.sum(tl.where(k[None, :] == winner[:, None], name[None, :], 0), axis=1)
    tl.store(labels + first + y * width + x, label.to(tl.uint8), mask=inside)
