"""The losses of training (ExCEL eqs. 11-13, method 5; dice: WeCLIP+), over the batch of the whole process group."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.distributed import global_sum

__all__ = ["IGNORE", "dice_loss", "diversity_loss", "pair_labels", "segmentation_loss"]

IGNORE = 255  # label of pixels and pairs that take no part


def segmentation_loss(logits: Tensor, labels: Tensor, form: Literal["halves", "mean"] = "halves") -> Tensor:
    """logits (B, C+1, H, W); labels (B, H, W) int64, 0 background, 255 ignored → scalar L_seg.

    "halves" (published): half the mean cross-entropy over background plus half that over foreground. "mean" (as printed): the
    mean over all pixels.
    """
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    if form == "mean":
        return global_sum(losses.sum()) / global_sum((labels != IGNORE).sum()).clamp_min(1)
    background = labels == 0
    foreground = (labels != 0) & (labels != IGNORE)
    # 1e-6 avoids 0 / 0 where a batch has no background or no foreground.
    means = [global_sum((losses * side).sum()) / (global_sum(side.sum()) + 1e-6) for side in (background, foreground)]
    return 0.5 * (means[0] + means[1])


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """logits (B, C+1, H, W); labels (B, H, W) int64, 255 ignored → 1 - the mean over all C+1 labels of 2 Σpo / (Σp + Σo +
    1e-7), p the softmax, o the one-hot labels, sums over batch and pixels (peers.md 4.4). A label that no pixel has counts as
    0."""
    takes_part = (labels != IGNORE)[:, None]
    probability = torch.softmax(logits, dim=1) * takes_part
    one_hot = torch.zeros_like(probability).scatter_(1, labels.masked_fill(labels == IGNORE, 0)[:, None], 1.0) * takes_part
    common, total = (values.sum(dim=(0, 2, 3)) for values in (probability * one_hot, probability + one_hot))
    return 1 - (2 * global_sum(common) / (global_sum(total) + 1e-7)).mean()


def pair_labels(labels: Tensor, grid: tuple[int, int], radius: int | None) -> Tensor:
    """labels (B, H, W) → pairs (B, M, M) uint8 of the M = h*w patches: 1 same label, 0 different, 255 left out.

    A patch has the label of its top-left pixel. Pairs farther than `radius` are left out (Chebyshev distance in patches; None:
    no limit), and pairs with an ignored patch. A patch with itself counts as same, as published.
    """
    small = F.interpolate(labels[:, None].float(), size=grid, mode="nearest").flatten(1)
    pairs = (small[:, :, None] == small[:, None, :]).to(torch.uint8)
    ignored = small == IGNORE
    left_out = ignored[:, :, None] | ignored[:, None, :]
    if radius is not None:
        left_out |= _distance(grid, labels.device) > radius
    return pairs.masked_fill_(left_out, IGNORE)


def _distance(grid: tuple[int, int], device: torch.device) -> Tensor:
    """(M, M) Chebyshev distance between patches."""
    rows, columns = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
    position = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    return (position[:, None] - position[None]).abs().amax(dim=-1)


def diversity_loss(probability: Tensor, pairs: Tensor, form: Literal["halved", "printed"] = "halved") -> Tensor:
    """probability R̂ (B, M, M), pairs (B, M, M) as `pair_labels` gives them → scalar (eq. 11).

    "halved" (published): with a factor of a half, and 1 added to the number of pairs of each kind. "printed": without both.
    """
    same, different = pairs == 1, pairs == 0
    # Same labels: R̂ is to be 1; different labels: R̂ is to be 0. Background with background counts as same.
    attract, repel = global_sum(((1 - probability) * same).sum()), global_sum((probability * different).sum())
    alike, unlike = global_sum(same.sum()), global_sum(different.sum())
    if form == "printed":
        return attract / alike.clamp_min(1) + repel / unlike.clamp_min(1)
    return 0.5 * (attract / (alike + 1) + repel / (unlike + 1))
