"""Pixel-adaptive refinement (PAR): label maps diffuse among pixels of similar colour (method 4)."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import ParSpec
from excel_core.kernels.compiled import has_loops
from excel_core.kernels.gpu import PackedSizes, has_triton, same_sizes
from excel_core.kernels.par import affinities, diffuse

__all__ = ["map_slots", "pixel_adaptive_refinement", "refine_packed_pictures"]

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
KERNEL_WIDTH = 0.3  # in local standard deviations, for colours and for positions, as published
POSITION_WEIGHT = 0.01  # as published


def pixel_adaptive_refinement(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """image (B, 3, H, W); maps (B, K, H, W) → refined maps (B, K, H, W).

    maps <- sum_n aff_n maps_n, `iterations` times, over 8 neighbours at each dilation with replicated borders, where
    aff = softmax_n(mean_ch -(|I_n - I| / (std_n I + 1e-8) / 0.3)^2) + 0.01 softmax_n(-(pos_n / (std pos + 1e-8) / 0.3)^2).
    The scale of the colours does not matter, but for the 1e-8: differences are in local standard deviations. Memory: one
    affinity per pixel and neighbour; the neighbours' values are read in place and never gathered.

    float32 on a CPU goes through compiled loops (kernels/par.py), image by image; on a GPU with Triton through its kernels
    (kernels/par_triton.py), and anything else through torch, the whole batch at once. On a GPU nothing waits for the device.
    """
    if image.dtype == maps.dtype == torch.float32 and has_triton(image.device):
        return _refine_by_kernels(image, maps, spec)
    # Compiled threads wait for each other once per iteration. Torch's would wait at each of a thousand small operations, and
    # lose much time beside any other busy process.
    if image.device.type == "cpu" and image.dtype == maps.dtype == torch.float32 and has_loops():
        pairs = zip(image, maps, strict=True)
        return torch.stack([_refine_by_rows(image_pixels, image_maps, spec) for image_pixels, image_maps in pairs])
    return _refine_by_planes(image, maps, spec)


def _refine_by_rows(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """One image (3, H, W) and maps (K, H, W), by compiled loops over rows, on torch's number of threads."""
    offsets, dilations = np.array(_offsets(spec)), np.array(spec.dilations)
    (H, W), reach, threads = maps.shape[-2:], max(spec.dilations), torch.get_num_threads()
    weights = np.empty((H, len(offsets), W), np.float32)
    edges = [H * i // threads for i in range(threads + 1)]

    def on_all_rows(kernel: Callable[..., None], *arguments: Any) -> None:
        """Call `kernel` on each thread's share of the rows, and wait for all."""
        futures = [_thread_pool(threads).submit(kernel, *arguments, *rows) for rows in pairwise(edges)]
        for future in futures:
            future.result()

    pixels, position = _pad(image[None], reach)[0].contiguous().numpy(), _position_affinity(spec, image).numpy()
    on_all_rows(affinities, pixels, offsets, reach, KERNEL_WIDTH, position, weights)
    current = _pad(maps[None], reach)[0].contiguous().numpy()
    refined = np.empty_like(current)
    for _ in range(spec.iterations):
        on_all_rows(diffuse, current, weights, dilations, reach, refined)
        current, refined = refined, current
    return torch.from_numpy(current[:, reach : reach + H, reach : reach + W].copy())


@lru_cache
def _thread_pool(threads: int) -> ThreadPoolExecutor:
    """One pool for all images, so that threads are not started anew for each."""
    return ThreadPoolExecutor(threads)


os.register_at_fork(after_in_child=_thread_pool.cache_clear)  # threads are not forked: a child would wait for ever


def _refine_by_kernels(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """image (B, 3, H, W) and maps (B, K, H, W), by kernels on a GPU."""
    B, K, H, W = maps.shape
    pixels = maps.new_zeros(B, H, W, map_slots(K))
    pixels[..., :K] = maps.permute(0, 2, 3, 1)
    colours = F.pad(image.permute(0, 2, 3, 1), (0, 1)).reshape(-1, 4)
    refined = refine_packed_pictures(colours, pixels.flatten(0, 2), same_sizes(B, H, W, maps.device), spec)
    return refined.reshape(pixels.shape)[..., :K].permute(0, 3, 1, 2)


def map_slots(maps: int) -> int:
    """The power of 2, at least 2, of maps that the kernels work on where there are these many."""
    return 1 << max(1, (maps - 1).bit_length())


def refine_packed_pictures(colours: Tensor, maps: Tensor, sizes: PackedSizes, spec: ParSpec) -> Tensor:
    """`pixel_adaptive_refinement` of pictures of different sizes, packed, on a GPU with Triton: colours (pixels, 4), the last
    of them 0; maps (pixels, K), K of `map_slots`, which are overwritten → refined maps (pixels, K)."""
    from excel_core.kernels.par_triton import refine_packed

    position = _position_by_dilation(spec.dilations)
    return refine_packed(colours, maps, sizes, spec.dilations, position, KERNEL_WIDTH, spec.iterations, spec.precision)


@lru_cache
def _position_by_dilation(dilations: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """`_position_affinity`, for each dilation, of the neighbours beside the pixel, and of those across its corners."""
    by_neighbour = _position_affinity(ParSpec(dilations=dilations), torch.zeros(1)).tolist()
    return tuple(by_neighbour[NEIGHBOURS.index((0, 1)) :: 8]), tuple(by_neighbour[NEIGHBOURS.index((1, 1)) :: 8])


def _refine_by_planes(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """image (B, 3, H, W) and maps (B, K, H, W), by torch operations on whole planes."""
    offsets, reach = _offsets(spec), max(spec.dilations)
    H, W = maps.shape[-2:]
    # In the flattened padded picture, a neighbour is a constant step away. So each product runs over one contiguous stretch,
    # from the first pixel to the last. The padding between rows is computed, too, with weight 0.
    width = W + 2 * reach
    first, length = reach * width + reach, (H - 1) * width + W
    steps = [dy * width + dx for dy, dx in offsets]
    affinity = F.pad(_affinity(image, spec), (0, 2 * reach)).flatten(2)[..., :length]
    for _ in range(spec.iterations):
        flat = _pad(maps, reach).flatten(2)
        refined = flat.new_zeros(*maps.shape[:2], H * width)
        for n, step in enumerate(steps):
            refined[..., :length].addcmul_(affinity[:, n : n + 1], flat[..., first + step : first + step + length])
        maps = refined.unflatten(2, (H, width))[..., :W]
    return maps


def _affinity(image: Tensor, spec: ParSpec) -> Tensor:
    """Weights (B, 48, H, W) of each pixel's neighbours; they sum to 1.01."""
    offsets, reach = _offsets(spec), max(spec.dilations)
    padded, (H, W), count = _pad(image, reach), image.shape[-2:], len(offsets)
    neighbours = [padded[..., reach + dy : reach + dy + H, reach + dx : reach + dx + W] for dy, dx in offsets]  # views
    mean, variance = torch.zeros_like(image), torch.zeros_like(image)
    for neighbour in neighbours:
        mean += neighbour / count
    for neighbour in neighbours:
        variance += (neighbour - mean).square_() / (count - 1)  # unbiased, as torch.std
    scale = (variance.sqrt_() + 1e-8) * KERNEL_WIDTH
    colour = image.new_empty(len(image), count, H, W)
    for n, neighbour in enumerate(neighbours):
        colour[:, n] = ((neighbour - image) / scale).square_().mean(dim=1).neg_()
    return torch.softmax(colour, dim=1) + _position_affinity(spec, image).view(1, -1, 1, 1)


def _position_affinity(spec: ParSpec, like: Tensor) -> Tensor:
    """The part (48,) of the weights that comes from the neighbours' distances."""
    distances = [max(abs(dy), abs(dx)) * (2**0.5 if dy and dx else 1.0) for dy, dx in _offsets(spec)]
    lengths = torch.stack([like.new_full((), distance) for distance in distances])  # copies nothing to a GPU
    return POSITION_WEIGHT * torch.softmax(-(lengths / (lengths.std() + 1e-8) / KERNEL_WIDTH).square(), dim=0)


def _offsets(spec: ParSpec) -> list[tuple[int, int]]:
    """(dy, dx) of each neighbour: 8 per dilation."""
    return [(dy * d, dx * d) for d in spec.dilations for dy, dx in NEIGHBOURS]


def _pad(values: Tensor, reach: int) -> Tensor:
    return F.pad(values, (reach,) * 4, mode="replicate")
