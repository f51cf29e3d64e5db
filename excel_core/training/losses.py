"""The two losses of training (ExCEL eqs. 11-13; method 5), over the batch of the whole team of processes."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.distributed import global_sum

__all__ = ["IGNORE", "diversity_loss", "pair_labels", "segmentation_loss"]

IGNORE = 255  # label of pixels and pairs that take no part


def segmentation_loss(logits: Tensor, labels: Tensor, form: Literal["halves", "mean"] = "halves") -> Tensor:
    """logits (B, C+1, H, W); labels (B, H, W) int64, 0 background, 255 ignored → scalar L_seg.

    "halves", as published: half the mean cross-entropy of each side, background and foreground; "mean": over all pixels.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    if form == "mean":
        return global_sum(losses.sum()) / global_sum((labels != IGNORE).sum()).clamp_min(1)
    background = labels == 0
    foreground = (labels != 0) & (labels != IGNORE)
    # 1e-6 keeps a side without pixels at zero.
    parts = [global_sum((losses * side).sum()) / (global_sum(side.sum()) + 1e-6) for side in (background, foreground)]
    return 0.5 * (parts[0] + parts[1])


def pair_labels(labels: Tensor, grid: tuple[int, int], radius: int | None) -> Tensor:
    """labels (B, H, W) → (B, M, M) uint8 over the M = h*w patches: 1 same label, 0 different, 255 no part.

    Labels are taken nearest-neighbour on the grid. Pairs farther than `radius` (Chebyshev, in patches; None: no limit) or
    with an ignored end take no part; a patch with itself counts as same.
    """
    small = F.interpolate(labels[:, None].float(), size=grid, mode="nearest").flatten(1)
    pairs = (small[:, :, None] == small[:, None, :]).to(torch.uint8)
    ignored = small == IGNORE
    left_out = ignored[:, :, None] | ignored[:, None, :]
    if radius is not None:
        left_out |= _distance(grid, labels.device) > radius
    pairs[left_out] = IGNORE
    return pairs


def _distance(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(M, M) Chebyshev distance between patches."""
    rows, columns = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    place = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    return (place[:, None] - place[None]).abs().amax(dim=-1)


def diversity_loss(probability: Tensor, pairs: Tensor, form: Literal["halved", "printed"] = "halved") -> Tensor:
    """probability R̂ (B, M, M), pairs (B, M, M) as `pair_labels` gives them → scalar (eq. 11).

    "halved", as published: with a factor of a half, and 1 added to the number of pairs of each kind; "printed": without.
    """
    same, different = pairs == 1, pairs == 0
    attract, repel = global_sum(((1 - probability) * same).sum()), global_sum((probability * different).sum())
    alike, unlike = global_sum(same.sum()), global_sum(different.sum())
    if form == "printed":
        return attract / alike.clamp_min(1) + repel / unlike.clamp_min(1)
    return 0.5 * (attract / (alike + 1) + repel / (unlike + 1))
