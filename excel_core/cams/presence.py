"""Zero-shot presence: how much CLIP itself sees a class in an image as a whole."""

import torch.nn.functional as F
from torch import Tensor

from excel_core.models.calibration import EncoderActivations
from excel_core.models.clip import FrozenClip

__all__ = ["presence_scores"]


def presence_scores(clip: FrozenClip, path: EncoderActivations, templates: Tensor) -> Tensor:
    """path of B images, templates t_c (C, D) unit → cosine of each image's class token with each template (B, C)."""
    image = F.normalize(clip.project(path.outputs[-1])[:, 0], dim=-1)
    return image @ templates.T
