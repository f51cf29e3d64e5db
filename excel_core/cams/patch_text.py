"""Patch-text class activation maps (ExCEL eq. 1), with the published feature surgery or as printed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import CamSpec

__all__ = ["minmax", "normalise_tokens", "patch_text_cams"]


def normalise_tokens(features: Tensor, spec: CamSpec) -> Tensor:
    """features P (B, N, D) → the same, of unit L2 norm: each channel over the tokens (published), or each token over the
    channels (eq. 1)."""
    return F.normalize(features, dim=1 if spec.features == "over_tokens" else 2)


def patch_text_cams(features: Tensor, text: Tensor, classes: int, spec: CamSpec) -> Tensor:
    """features P (B, 1+M, D) class token first; text (C+Z, D) unit rows, Z background prompts last → (B, C, M) in [0, 1].

    With surgery (published, not in eq. 1): score_ic = w_c F_i·T_c - mean_c'(w_c' F_i·T_c') with w = softmax_c(2 F_cls·T_c) /
    its mean. Without surgery: the similarity F_i·T_c; over channels that is the cosine, whatever the length of the texts.
    """
    tokens = normalise_tokens(features, spec)
    if spec.features == "over_channels":
        text = F.normalize(text, dim=1)
    scores = tokens @ text.T
    # The published code subtracts the mean over classes from a tensor (B, N, C, D) and then sums over D. Both are linear, so
    # subtracting it from the sums gives the same and needs D times less memory.
    if spec.surgery:
        presence = torch.softmax(2 * scores[:, :1], dim=-1)
        scores = scores * (presence / presence.mean(dim=-1, keepdim=True))
        scores = scores - scores.mean(dim=-1, keepdim=True)
    if spec.minmax == "patches":
        scores = scores[:, 1:]  # published: the class token takes part in the minimum and maximum
    scaled = minmax(scores, dim=1)
    patches = features.shape[1] - 1
    return scaled[:, -patches:, :classes].mT


def minmax(values: Tensor, dim: int) -> Tensor:
    """values → [0, 1] along `dim`; a constant slice becomes 0."""
    low, high = values.amin(dim, keepdim=True), values.amax(dim, keepdim=True)
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)
