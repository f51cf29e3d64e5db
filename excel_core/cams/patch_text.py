"""Patch-text class activation maps (ExCEL eq. 1), with the published feature surgery or as printed."""

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import CamSpec

__all__ = ["minmax", "normalise_tokens", "patch_text_cams"]


def normalise_tokens(features: Tensor, spec: CamSpec) -> Tensor:
    """features P (B, N, D) → L2 over tokens for each channel (published), or over channels; same shape."""
    return F.normalize(features, dim=1 if spec.features == "over_tokens" else 2)


def patch_text_cams(features: Tensor, text: Tensor, classes: int, spec: CamSpec) -> Tensor:
    """features P (B, 1+M, D) class token first; text (C+Z, D) unit rows, Z background prompts last → (B, C, M) in [0, 1].

    Surgery: score_ic = w_c F_i·T_c - mean_c'(w_c' F_i·T_c') with w = softmax_c(2 F_cls·T_c) / its mean; algebraically
    the published one without its (B, N, C, D) tensor. Without surgery: the plain similarity. Over channels it is the cosine,
    whatever the length of the texts.
    """
    tokens = normalise_tokens(features, spec)
    if spec.features == "over_channels":
        text = F.normalize(text, dim=1)
    scores = tokens @ text.T
    if spec.surgery:
        presence = torch.softmax(2 * scores[:, :1], dim=-1)
        scores = scores * (presence / presence.mean(dim=-1, keepdim=True))
        scores = scores - scores.mean(dim=-1, keepdim=True)
    if spec.minmax == "patches":
        scores = scores[:, 1:]
    scaled = minmax(scores, dim=1)
    return scaled[:, -(features.shape[1] - 1) :, :classes].mT


def minmax(values: Tensor, dim: int) -> Tensor:
    """values → [0, 1] along `dim`; a constant slice becomes 0."""
    low, high = values.amin(dim, keepdim=True), values.amax(dim, keepdim=True)
    return (values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny)
