"""Pixel-adaptive refinement: label maps diffuse among pixels of like colour (method 4)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import ParSpec

__all__ = ["pixel_adaptive_refinement"]

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
COLOUR_WIDTH = 0.3  # of the local standard deviation, for colours and for positions
POSITION_WEIGHT = 0.01


def pixel_adaptive_refinement(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """image (B, 3, H, W); maps (B, K, H, W) → refined maps (B, K, H, W).

    maps <- sum_n aff_n maps_n, `iterations` times, over 8 neighbours at each dilation with replicated borders, where
    aff = softmax_n(mean_ch -(|I_n - I| / (std_n I + 1e-8) / 0.3)^2) + 0.01 softmax_n(-(pos_n / (std pos + 1e-8) / 0.3)^2).
    The colours' scale does not matter, up to the 1e-8: differences are measured in local standard deviations.
    Memory: an affinity a pixel and neighbour; neighbours themselves are only looked at, never gathered.
    float32 on a CPU goes through compiled loops (kernels/par.py), an image at a time on torch's number of threads, which meet
    once an iteration: a thousand small torch operations would meet a thousand times, and wait for each other beside any
    other busy process. Anything else goes through torch, the whole batch at once.
    """
    if image.device.type == "cpu" and image.dtype == maps.dtype == torch.float32 and find_spec("numba"):
        return torch.stack([_refine_by_rows(one, its, spec) for one, its in zip(image, maps, strict=True)])
    return _refine_by_planes(image, maps, spec)


def _refine_by_rows(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """One image (3, H, W), maps (K, H, W), by compiled loops over rows."""
    from excel_core.kernels.par import affinities, diffuse  # numba: where a GPU computes, it need not be installed

    offsets, dilations = np.array(_offsets(spec)), np.array(spec.dilations)
    (H, W), reach, threads = maps.shape[-2:], max(spec.dilations), torch.get_num_threads()
    weights = np.empty((H, len(offsets), W), np.float32)
    about = (
        _pad(image[None], reach)[0].numpy(),
        offsets,
        reach,
        COLOUR_WIDTH,
        _position_affinity(spec, image).numpy(),
        weights,
    )
    now = _pad(maps[None], reach)[0].contiguous().numpy()
    then = np.empty_like(now)
    edges = [H * i // threads for i in range(threads + 1)]

    def on_all_rows(work: Callable[..., None], *arguments: Any) -> None:
        for done in [_threads(threads).submit(work, *arguments, *rows) for rows in pairwise(edges)]:
            done.result()

    on_all_rows(affinities, *about)
    for _ in range(spec.iterations):
        on_all_rows(diffuse, now, weights, dilations, reach, then)
        now, then = then, now
    return torch.from_numpy(now[:, reach : reach + H, reach : reach + W].copy())


@lru_cache
def _threads(count: int) -> ThreadPoolExecutor:
    """The same threads for all images."""
    return ThreadPoolExecutor(count)


def _refine_by_planes(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """image (B, 3, H, W), maps (B, K, H, W), by torch operations on whole planes."""
    offsets, reach = _offsets(spec), max(spec.dilations)
    H, W = maps.shape[-2:]
    # In the padded picture laid out flat, a neighbour is a constant step away, so each of the many products runs over one
    # contiguous stretch from the first pixel to the last; what it computes in the padding between rows has weight 0.
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
    """(B, 48, H, W) weights of each pixel's neighbours; they sum to 1.01."""
    offsets, reach = _offsets(spec), max(spec.dilations)
    padded, (H, W), count = _pad(image, reach), image.shape[-2:], len(offsets)
    neighbours = [padded[..., reach + dy : reach + dy + H, reach + dx : reach + dx + W] for dy, dx in offsets]  # views
    mean, variance = torch.zeros_like(image), torch.zeros_like(image)
    for neighbour in neighbours:
        mean += neighbour / count
    for neighbour in neighbours:
        variance += (neighbour - mean).square_() / (count - 1)  # unbiased
    scale = (variance.sqrt_() + 1e-8) * COLOUR_WIDTH
    colour = image.new_empty(len(image), count, H, W)
    for n, neighbour in enumerate(neighbours):
        colour[:, n] = ((neighbour - image) / scale).square_().mean(dim=1).neg_()
    return torch.softmax(colour, dim=1) + _position_affinity(spec, image).view(1, -1, 1, 1)


def _position_affinity(spec: ParSpec, like: Tensor) -> Tensor:
    """(48,) what a neighbour's distance alone adds to its weight."""
    lengths = like.new_tensor([max(abs(dy), abs(dx)) * (2**0.5 if dy and dx else 1.0) for dy, dx in _offsets(spec)])
    return POSITION_WEIGHT * torch.softmax(-(lengths / (lengths.std() + 1e-8) / COLOUR_WIDTH).square(), dim=0)


def _offsets(spec: ParSpec) -> list[tuple[int, int]]:
    """(dy, dx) of each neighbour: 8 a dilation."""
    return [(dy * d, dx * d) for d in spec.dilations for dy, dx in NEIGHBOURS]


def _pad(values: Tensor, reach: int) -> Tensor:
    return F.pad(values, (reach,) * 4, mode="replicate")
