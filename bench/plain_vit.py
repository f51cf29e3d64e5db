"""CLIP's vision tower by torch alone, under open_clip's names: for a FrozenClip where open_clip is not installed."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from excel_core.models.clip import FrozenClip, VisionOnly
from excel_core.models.segmenter import QuickGELU

__all__ = ["random_clip"]

SHARP = 1.4  # standard deviation of what queries and keys are made of


def random_clip(blocks: int = 12, width: int = 768, joint: int = 512, patch: int = 16, side: int = 224) -> FrozenClip:
    """A FrozenClip of ViT-B/16's size with seeded random weights on the CPU; it encodes no texts."""
    torch.manual_seed(0)
    return FrozenClip(VisionOnly(_Tower(blocks, width, joint, patch, side)), None, f"ViT-{width}/{patch}, random")


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64 or 1, batch_first=True)
        # As drawn, every patch looks everywhere alike, and what refinement finds is rounding; this is as sharp as if trained.
        nn.init.normal_(self.attn.in_proj_weight[: 2 * width], std=SHARP * width**-0.5)
        self.ls_1, self.ls_2 = nn.Identity(), nn.Identity()
        layers = OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width))
        self.mlp = nn.Sequential(layers)


class _Tower(nn.Module):
    """Holds the weights; excel_core.models.clip runs them."""

    def __init__(self, blocks: int, width: int, joint: int, patch: int, side: int) -> None:
        super().__init__()
        self.patch_size, self.grid_size = (patch, patch), (side // patch, side // patch)
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(_small(width))
        self.positional_embedding = nn.Parameter(_small(self.grid_size[0] * self.grid_size[1] + 1, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.proj = nn.Parameter(_small(width, joint))


def _small(*shape: int) -> Tensor:
    return torch.randn(*shape) * shape[0] ** -0.5
