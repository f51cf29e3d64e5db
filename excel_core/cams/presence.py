"""Zero-shot presence: how much CLIP itself sees a class in an image as a whole."""

import torch.nn.functional as F
from torch import Tensor

from excel_core.models.calibration import EncoderActivations
from excel_core.models.clip import FrozenClip

__all__ = ["image_embedding", "presence_scores"]


def image_embedding(clip: FrozenClip, path: EncoderActivations) -> Tensor:
    """path of B images, all blocks → each image's class token as CLIP compares it with texts (B, D), unit over D."""
    return F.normalize(clip.project(path.outputs[-1])[:, 0], dim=-1)


def presence_scores(embedding: Tensor, templates: Tensor) -> Tensor:
    """`image_embedding` (B, D), templates t_c (C, D) unit → their cosines (B, C)."""
    return embedding @ templates.T
