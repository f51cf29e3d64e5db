"""Pixel-adaptive refinement: label maps diffuse among pixels of like colour (method 4)."""

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
    """
    if image.device.type == "cpu" and len(image) > 1:  # one image's weights stay in the cache, a batch's do not
        pairs = zip(image.split(1), maps.split(1), strict=True)
        return torch.cat([pixel_adaptive_refinement(one, its, spec) for one, its in pairs])
    offsets = [(dy * d, dx * d) for d in spec.dilations for dy, dx in NEIGHBOURS]
    reach = max(spec.dilations)
    H, W = maps.shape[-2:]
    # In the padded picture laid out flat, a neighbour is a constant step away, so each of the many products runs over one
    # contiguous stretch from the first pixel to the last; what it computes in the padding between rows has weight 0.
    width = W + 2 * reach
    first, length = reach * width + reach, (H - 1) * width + W
    steps = [dy * width + dx for dy, dx in offsets]
    affinity = F.pad(_affinity(image, offsets, reach), (0, 2 * reach)).flatten(2)[..., :length]
    for _ in range(spec.iterations):
        flat = _pad(maps, reach).flatten(2)
        refined = flat.new_zeros(*maps.shape[:2], H * width)
        for n, step in enumerate(steps):
            refined[..., :length].addcmul_(affinity[:, n : n + 1], flat[..., first + step : first + step + length])
        maps = refined.unflatten(2, (H, width))[..., :W]
    return maps


def _affinity(image: Tensor, offsets: list[tuple[int, int]], reach: int) -> Tensor:
    """(B, 48, H, W) weights of each pixel's neighbours; they sum to 1.01."""
    padded = _pad(image, reach)
    neighbours = torch.stack([_shifted(padded, offset, reach) for offset in offsets], dim=1)
    spread = neighbours.std(dim=1, keepdim=True)  # unbiased, over the neighbours
    distance = ((neighbours - image[:, None]).abs() / (spread + 1e-8) / COLOUR_WIDTH).square()
    colour = torch.softmax(-distance.mean(dim=2), dim=1)
    lengths = image.new_tensor([max(abs(dy), abs(dx)) * (2**0.5 if dy and dx else 1.0) for dy, dx in offsets])
    position = torch.softmax(-(lengths / (lengths.std() + 1e-8) / COLOUR_WIDTH).square(), dim=0)
    return colour + POSITION_WEIGHT * position.view(1, -1, 1, 1)


def _pad(values: Tensor, reach: int) -> Tensor:
    return F.pad(values, (reach,) * 4, mode="replicate")


def _shifted(padded: Tensor, offset: tuple[int, int], reach: int) -> Tensor:
    dy, dx = offset
    H, W = padded.shape[-2] - 2 * reach, padded.shape[-1] - 2 * reach
    return padded[..., reach + dy : reach + dy + H, reach + dx : reach + dx + W]
