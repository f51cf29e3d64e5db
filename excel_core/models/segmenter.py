"""What is trained: the neck (adapter) over the blocks' tokens and the transformer head (ExCEL eq. 7; method 5), with a neck
more where there is a second frozen encoder (WeCLIP+, peers.md 4.2)."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from excel_core.config import SegmenterSpec
from excel_core.distributed import process_group
from excel_core.errors import SettingError
from excel_core.training.enlarge import enlarged

__all__ = ["Segmentation", "Segmenter", "neck_blocks"]


@dataclass(frozen=True)
class Segmentation:
    """features F_d (B, D_d, h, w), the adapter's, with two necks side by side (B, 2 D_d, h, w); logits (B, C+1, h, w),
    background first, the mean of `by_encoder` (E, B, C+1, h, w), those of each of the E encoders."""

    features: Tensor
    by_encoder: Tensor

    @property
    def logits(self) -> Tensor:
        """(B, C+1, h, w)."""
        return self.by_encoder[0] if len(self.by_encoder) == 1 else self.by_encoder.mean(dim=0)


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), as in OpenAI's CLIP."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape → the same shape."""
        return x * torch.sigmoid(1.702 * x)


class ChannelDropout(nn.Module):
    """torch's Dropout2d, but drawn for the batch of the whole process group: an image loses the same channels, however many
    ranks share the batch."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) → the same with whole channels zero and the others scaled by 1 / (1 - p); x itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        group, (B, C) = process_group(), x.shape[:2]
        mask = x.new_empty(group.world_size * B, C, 1, 1).bernoulli_(1 - self.p)
        if self.p < 1:
            mask /= 1 - self.p
        return x * mask[group.share(len(mask))]


class Neck(nn.Module):
    """patches (L, B, M, D_s) → F_d (B, D_d, h, w): a 2-layer MLP per block, concatenated, fused by a 1x1 convolution."""

    def __init__(self, blocks: int, token_width: int, spec: SegmenterSpec) -> None:
        super().__init__()
        width = spec.width
        self.adapters = nn.ModuleList(
            nn.Sequential(nn.Linear(token_width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.fuse = nn.Conv2d(blocks * width, width, kernel_size=1)
        self.dropout = ChannelDropout(spec.dropout)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """patches (L, B, M, D_s), M = h*w of `grid` → F_d (B, D_d, h, w), after dropout. ExCEL eq. 7."""
        L, B, M, _ = patches.shape
        # One product for all blocks instead of one each.
        hidden = torch.relu(self._linear(0, patches.flatten(1, 2)))
        adapted = self._linear(2, hidden).view(L, B, M, -1)
        fused: Tensor = self.dropout(self.fuse(adapted.permute(1, 0, 3, 2).reshape(B, -1, *grid)))
        return fused

    def _linear(self, place: int, tokens: Tensor) -> Tensor:
        """tokens (L, n, C) → (L, n, C'), each block's through the linear layer at that place of its own MLP."""
        layers: list[Any] = [adapter[place] for adapter in self.adapters]  # type: ignore[index]
        weights, biases = torch.stack([layer.weight for layer in layers]), torch.stack([layer.bias for layer in layers])
        return torch.baddbmm(biases[:, None], tokens, weights.mT)


class Block(nn.Module):
    """A pre-LN transformer layer over (B, M, D_d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 4 * width), gelu=QuickGELU(), c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, M, D_d) → the same shape."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Segmenter(nn.Module):
    """Neck and head for C classes over the L blocks of a ViT of width D_s, and over a second encoder's features of
    `second_width`, where there is one."""

    def __init__(
        self, blocks: int, token_width: int, classes: int, spec: SegmenterSpec, second_width: int | None = None
    ) -> None:
        super().__init__()
        if spec.width % spec.heads:
            raise SettingError(f"train.segmenter.width={spec.width} must be a multiple of heads={spec.heads}")
        self.blocks = neck_blocks(blocks, spec)
        self.reads_last_block = self.blocks.stop == blocks
        self.neck = Neck(len(range(blocks)[self.blocks]), token_width, spec)
        self.head = nn.Sequential(*(Block(spec.width, spec.heads) for _ in range(spec.layers)))
        self.classifier = nn.Conv2d(spec.width, classes + 1, kernel_size=1)
        self.second_neck = Neck(1, second_width, spec) if second_width is not None else None

    def forward(self, layers: Tensor, grid: tuple[int, int], second: Tensor | None = None) -> Segmentation:
        """layers (L, B, 1+M, D_s) with M = h*w of `grid` → Segmentation. `second` (B, D', h', w'): the second encoder's
        features on its own grid, to which its neck's output (after dropout) is resized bilinearly."""
        features = self.neck(layers[self.blocks, :, 1:], grid)[None]
        if self.second_neck is not None:
            if second is None:
                raise ValueError("segmenter: has a second neck, but got no features for it")
            own_grid = second.shape[-2:]
            second_features = self.second_neck(second.flatten(2).mT[None], (own_grid[0], own_grid[1]))
            features = torch.cat([features, enlarged(second_features, grid)[None]])
        # One head for all encoders, and one pass.
        maps = features.flatten(0, 1)
        tokens = self.head(maps.flatten(2).mT)
        logits = self.classifier(tokens.mT.reshape(maps.shape)).unflatten(0, features.shape[:2])
        return Segmentation(features.transpose(0, 1).flatten(1, 2), logits)


def neck_blocks(blocks: int, spec: SegmenterSpec) -> slice:
    """Those of a ViT's blocks that the neck reads."""
    return {"all": slice(0, blocks), "before_last": slice(0, blocks - 1), "last_but_one": slice(blocks - 2, blocks - 1)}[
        spec.blocks
    ]
