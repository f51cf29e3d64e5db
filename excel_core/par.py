"""Pixel-adaptive refinement: label maps diffuse among pixels of like colour (method 4)."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import ParSpec
from excel_core.kernels import over_rows

__all__ = ["pixel_adaptive_refinement"]

NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
COLOUR_WIDTH = 0.3  # of the local standard deviation, for colours and for positions
POSITION_WEIGHT = 0.01


def pixel_adaptive_refinement(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """image (B, 3, H, W); maps (B, K, H, W) → refined maps (B, K, H, W), of the maps' dtype.

    maps <- sum_n aff_n maps_n, `iterations` times, over 8 neighbours at each dilation with replicated borders, where
    aff = softmax_n(mean_ch -(|I_n - I| / (std_n I + 1e-8) / 0.3)^2) + 0.01 softmax_n(-(pos_n / (std pos + 1e-8) / 0.3)^2).
    The colours' scale does not matter, up to the 1e-8: differences are measured in local standard deviations.
    float32 on a CPU goes through kernels/par.py, an image at a time on torch's number of threads; anything else through
    torch, the whole batch at once. Both hold one affinity a pixel and neighbour, and never the neighbours themselves.
    """
    if image.device.type == "cpu" and image.dtype == maps.dtype == torch.float32:
        return torch.stack([_refine_by_rows(one, its, spec) for one, its in zip(image, maps, strict=True)])
    return _refine_by_planes(image, maps, spec)


def _refine_by_rows(image: Tensor, maps: Tensor, spec: ParSpec) -> Tensor:
    """One image (3, H, W), maps (K, H, W), by compiled loops over rows."""
    from excel_core.kernels.par import affinities, diffuse

    offsets, dilations = np.array(_offsets(spec)), np.array(spec.dilations)
    reach, (H, W), threads = max(spec.dilations), maps.shape[-2:], torch.get_num_threads()
    affinity = torch.empty(H, len(offsets), W)
    weights, padded, position = affinity.numpy(), _pad(image, reach).numpy(), _position_affinity(spec, affinity)
    now, then = _pad(maps, reach).contiguous(), torch.empty(len(maps), H + 2 * reach, W + 2 * reach)
    with ThreadPoolExecutor(threads) as pool:
        like = (padded, offsets, reach, COLOUR_WIDTH, position.numpy(), weights)
        over_rows(pool, threads, H, lambda *rows: affinities(*like, *rows))
        for _ in range(spec.iterations):
            source, target = now.numpy(), then.numpy()
            over_rows(pool, threads, H, lambda *rows: diffuse(source, weights, dilations, reach, target, *rows))  # noqa: B023
            now, then = then, now
    return now[:, reach : reach + H, reach : reach + W].contiguous()


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
    padded, (H, W) = _pad(image, reach), image.shape[-2:]

    def neighbour(n: int) -> Tensor:
        top, left = reach + offsets[n][0], reach + offsets[n][1]
        return padded[..., top : top + H, left : left + W]

    count = len(offsets)
    mean = torch.zeros_like(image)
    for n in range(count):
        mean += neighbour(n) / count
    spread = torch.zeros_like(image)
    for n in range(count):
        spread += (neighbour(n) - mean).square()
    scale = ((spread / (count - 1)).sqrt() + 1e-8) * COLOUR_WIDTH
    distance = image.new_empty(len(image), count, H, W)
    for n in range(count):
        distance[:, n] = ((neighbour(n) - image) / scale).square().mean(dim=1)
    return torch.softmax(-distance, dim=1) + _position_affinity(spec, image).view(1, -1, 1, 1)


def _position_affinity(spec: ParSpec, like: Tensor) -> Tensor:
    """(48,) what a neighbour's distance alone adds to its weight."""
    lengths = like.new_tensor([max(abs(dy), abs(dx)) * (2**0.5 if dy and dx else 1.0) for dy, dx in _offsets(spec)])
    return POSITION_WEIGHT * torch.softmax(-(lengths / (lengths.std() + 1e-8) / COLOUR_WIDTH).square(), dim=0)


def _offsets(spec: ParSpec) -> list[tuple[int, int]]:
    """(dy, dx) of each neighbour: 8 a dilation."""
    return [(dy * d, dx * d) for d in spec.dilations for dy, dx in NEIGHBOURS]


def _pad(values: Tensor, reach: int) -> Tensor:
    """values (..., H, W) → replicated by `reach` on every side."""
    planes: Tensor = F.pad(values.flatten(0, -3)[None], (reach,) * 4, mode="replicate")[0]
    return planes.reshape(*values.shape[:-2], *planes.shape[-2:])
