"""A frozen DINOv2 as the second encoder: patch features of its last block (peers.md 4.1). Loading is in `dino_weights.py`.

The blocks are timm's; positions are resized here, as the published DINOv2 resizes them, which timm does otherwise.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.errors import SettingError

__all__ = ["FrozenDino"]

SCALE_OFFSET = 0.1  # patches added before the sides' ratio is taken, against rounding; it moves the sampling grid


class FrozenDino:
    """A timm VisionTransformer in evaluation mode without gradients. `positions` (1 + m*m, D): the class token's first."""

    def __init__(self, model: Any, positions: Tensor, name: str) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.positions = positions
        self.name = name
        self.patch: int = model.patch_embed.patch_size[0]
        self.width: int = model.embed_dim
        self.heads: int = model.blocks[0].attn.num_heads
        self.has_registers = model.reg_token is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.positions.device

    def to(self, device: torch.device | str) -> "FrozenDino":
        """The same encoder with its weights on `device`."""
        self.model.to(device)
        self.positions = self.positions.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors under timm's names, with the positions as published."""
        return {**self.model.state_dict(), "pos_embed": self.positions[None]}

    def resized(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) normalised → its network input: sides cut down to whole patches, bilinear, not smoothed."""
        height, width = (side // self.patch * self.patch for side in image.shape[-2:])
        if not height or not width:
            raise SettingError(f"image size {tuple(image.shape[-2:])} is smaller than a patch of {self.patch} of {self.name}")
        return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)

    def features(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W), normalised with ImageNet's statistics → patch features (B, D, h, w) after the final LayerNorm."""
        patches = self.model.patch_embed.proj(self.resized(image))
        B, D, h, w = patches.shape
        positions = self._positions(h, w).to(patches.dtype)
        tokens = torch.cat([self.model.cls_token.expand(B, -1, -1), patches.flatten(2).mT], dim=1) + positions
        if self.has_registers:  # they have no position
            tokens = torch.cat([tokens[:, :1], self.model.reg_token.expand(B, -1, -1), tokens[:, 1:]], dim=1)
        for block in self.model.blocks:
            tokens = block(tokens)
        features: Tensor = self.model.norm(tokens)[:, -h * w :]
        return features.mT.reshape(B, D, h, w)

    def _positions(self, h: int, w: int) -> Tensor:
        """Positions (1 + h*w, D) of a grid. With registers the published code resizes otherwise than without."""
        side = math.isqrt(len(self.positions) - 1)
        if h == w == side:
            return self.positions
        grid = self.positions[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if self.has_registers:
            grid = F.interpolate(grid, size=(h, w), mode="bicubic", antialias=True)
        else:
            factors = ((h + SCALE_OFFSET) / side, (w + SCALE_OFFSET) / side)
            grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        return torch.cat([self.positions[:1], grid.flatten(2)[0].T])
