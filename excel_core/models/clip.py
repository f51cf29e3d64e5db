"""A frozen CLIP with a plain ViT tower, part by part, and the way from images to its input.

Only reads an open_clip model's modules; nothing here trains or patches it. Loading is in `clip_weights.py`.
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from excel_core.errors import ModelError
from excel_core.kernels.resize import axis_of, resized_window

__all__ = [
    "FrozenClip",
    "VisionOnly",
    "as_pixels",
    "check_plain_vit",
    "denormalise_pixels",
    "normalise_pixels",
    "quantised_pixels",
    "resize_pixels",
    "shrunk_pixels",
]  # fmt: skip

# Mean and standard deviation of R, G, B in [0, 1].
PIXEL_STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
Normalisation = Literal["imagenet", "clip"]
_text_towers = threading.Lock()  # held while texts are encoded or a text tower moves


@dataclass(frozen=True)
class QueryKeyValue:
    """Queries, keys and values of one block, each (B, H, N, D_s/H)."""

    q: Tensor
    k: Tensor
    v: Tensor


class VisionOnly(nn.Module):
    """Stands in for an open_clip model whose text tower is not there."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual


class FrozenClip:
    """An open_clip model in evaluation mode without gradients, and its vision tower block by block.

    Its tower is one that `check_plain_vit` lets pass; clip_weights.py, which loads models, sees to that.
    A `VisionOnly` model has no `tokenizer` and encodes no texts. `config`, where it is known: what open_clip builds the vision
    tower from (embed_dim, vision_cfg, quick_gelu).
    """

    def __init__(self, model: Any, tokenizer: Any | None, name: str = "CLIP", config: dict[str, Any] | None = None) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.visual: Any = model.visual
        self.blocks: list[Any] = list(self.visual.transformer.resblocks)
        self.tokenizer = tokenizer
        self.name = name
        self.config = config
        self.patch: int = self.visual.patch_size[0]
        self.width: int = self.visual.conv1.out_channels
        self.heads: int = self.blocks[0].attn.num_heads
        self.joint_width: int = self.visual.proj.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.visual.proj.device  # type: ignore[no-any-return]

    @property
    def logit_scale(self) -> Tensor:
        """What multiplies cosines of images and texts before a softmax, a scalar; ModelError where the weights have none."""
        stored: Tensor | None = getattr(self.model, "logit_scale", None)
        if stored is None:
            raise ModelError(f"{self.name}: its weights hold no logit_scale, which GradCAM needs; load the whole CLIP")
        return stored.exp()

    def tokens(self, image: Tensor) -> Tensor:
        """image (B, 3, S, S') normalised → tokens (B, 1 + h*w, D_s), class token first, before block 1.

        The positional embedding is resized bilinearly (align_corners=False) to h x w (method 2).
        """
        patches = self.visual.conv1(image)
        h, w = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        class_token = self.visual.class_embedding.expand(image.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + self._positions(h, w)
        return self.visual.ln_pre(tokens)  # type: ignore[no-any-return]

    def _positions(self, h: int, w: int) -> Tensor:
        stored: Tensor = self.visual.positional_embedding
        rows, columns = self.visual.grid_size
        if (rows, columns) == (h, w):
            return stored
        grid = stored[1:].reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid.float(), size=(h, w), mode="bilinear", align_corners=False).to(stored.dtype)
        return torch.cat([stored[:1], grid.flatten(2)[0].T])

    def qkv(self, block: int, tokens: Tensor) -> QueryKeyValue:
        """tokens (B, N, D_s), the input of `block` (0-based) → its queries, keys, values after LN1."""
        layer = self.blocks[block]
        return self.split_heads(F.linear(layer.ln_1(tokens), layer.attn.in_proj_weight, layer.attn.in_proj_bias))

    def split_heads(self, projected: Tensor) -> QueryKeyValue:
        """projected (B, N, 3 D_s), a block's in-projection → queries, keys, values."""
        B, N, C = (*projected.shape[:2], self.width)
        q, k, v = projected.reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        return QueryKeyValue(q, k, v)

    def attention_output(self, block: int, attended: Tensor) -> Tensor:
        """attended (B, N, D_s), all heads side by side → (B, N, D_s) through the block's output projection."""
        layer = self.blocks[block]
        return layer.ls_1(layer.attn.out_proj(attended))  # type: ignore[no-any-return]

    def mlp(self, block: int, tokens: Tensor) -> Tensor:
        """tokens (B, N, D_s) → the block's MLP update (B, N, D_s), to be added."""
        layer = self.blocks[block]
        return layer.ls_2(layer.mlp(layer.ln_2(tokens)))  # type: ignore[no-any-return]

    def project(self, tokens: Tensor) -> Tensor:
        """tokens (B, N, D_s) after the last block → joint space (B, N, D); not normalised."""
        return self.visual.ln_post(tokens) @ self.visual.proj  # type: ignore[no-any-return]

    def encode_texts(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """texts → (len(texts), D) float32 rows of unit length, on the CPU; ModelError where there is no text tower."""
        if self.tokenizer is None:
            raise ModelError(f"{self.name} is a vision tower alone and encodes no texts; load the whole CLIP: --clip MODEL:TAG")
        rows = []
        with _text_towers:
            self._move_text_tower(self.device)
            with torch.inference_mode():
                for start in range(0, len(texts), batch_size):
                    tokens = self.tokenizer(texts[start : start + batch_size]).to(self.device)
                    rows.append(self.model.encode_text(tokens, normalize=True).float().cpu())
        return torch.cat(rows)

    def park_text_tower(self) -> None:
        """Keep the text tower on the CPU until the next text: on a GPU it would fill 0.24 GiB for nothing (ViT-B/16)."""
        if self.tokenizer is not None:
            with _text_towers:
                self._move_text_tower(torch.device("cpu"))

    def _move_text_tower(self, device: torch.device) -> None:
        """Move all but the vision tower."""
        texts = (value for name, value in self.model.named_parameters() if not name.startswith("visual."))
        if next(texts).device == device:
            return
        self.model.visual = None  # so that the rest moves alone
        try:
            self.model.to(device)
        finally:
            self.model.visual = self.visual


def check_plain_vit(model: Any, name: str) -> None:
    """Raise ModelError, naming what is unsupported, unless the vision tower is a plain ViT with a class token."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    visual: Any = getattr(model, "visual", None)
    if not isinstance(visual, VisionTransformer):
        raise ModelError(
            f"{name}: its vision tower is {type(visual).__name__}; excel needs open_clip's plain VisionTransformer, "
            "such as ViT-B-16 or ViT-L-14"
        )
    problems = []
    if visual.attn_pool is not None:
        problems.append("attentional pooling")
    if visual.pool_type != "tok":
        problems.append(f"pooling by {visual.pool_type!r} instead of the class token")
    if visual.patch_size[0] != visual.patch_size[1]:
        problems.append(f"patches of {visual.patch_size} that are not square")
    if visual.proj is None:
        problems.append("no projection into the joint space")
    if visual.final_ln_after_pool:
        problems.append("the final LayerNorm after pooling")
    for index, block in enumerate(visual.transformer.resblocks):
        if type(block) is not ResidualAttentionBlock or not isinstance(block.attn, nn.MultiheadAttention):
            problems.append(f"block {index + 1} of type {type(block).__name__}")
            break
    if problems:
        raise ModelError(f"{name}: unsupported in its vision tower: {'; '.join(problems)}; choose a plain ViT")


def as_pixels(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """image (H, W, 3) uint8 RGB → (1, 3, H, W) float32 in [0, 1] on the device, sent there in 8 bits from pinned memory."""
    pixels = torch.from_numpy(image)
    if device.type == "cuda":
        pixels = pixels.pin_memory()
    return pixels.to(device, non_blocking=True).permute(2, 0, 1)[None].float() / 255


def resize_pixels(pixels: Tensor, side: int | tuple[int, int], antialias: bool = False) -> Tensor:
    """pixels (B, 3, H, W) float → (B, 3, side, side), or of the size (H', W'), bilinear with half-pixel centres (method 2).

    Nothing is rounded, and without `antialias` nothing is smoothed: 8 → 4 of [0, 0, 0, 255, 0, 0, 0, 0] is [0, 127.5, 0, 0].
    It commutes with `normalise_pixels` up to float32's last bits, since the weights of a pixel sum to 1; the published code
    normalises first.
    """
    size = (side, side) if isinstance(side, int) else side
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def shrunk_pixels(image: NDArray[np.uint8], side: int | tuple[int, int], antialias: bool) -> Tensor:
    """image (H, W, 3) uint8 RGB → (1, 3, side, side), or of the size (H', W'): `resize_pixels` of `as_pixels` on a CPU, to
    the last bit, without a float copy of the photo: with `antialias` one channel's at a time."""
    if antialias:
        planes = (torch.from_numpy(np.ascontiguousarray(image[..., channel])).float().div_(255) for channel in range(3))
        return torch.cat([resize_pixels(plane[None, None], side, antialias) for plane in planes], dim=1)
    size = (side, side) if isinstance(side, int) else side
    vertical, horizontal = (axis_of(image.shape[axis], size[axis], align_corners=False) for axis in (0, 1))
    return torch.from_numpy(resized_window(image, vertical, horizontal, divisor=255))[None]


def quantised_pixels(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    """pixels (B, 3, H, W) float32 in 0…255 → the same, normalised, de-normalised and truncated to whole numbers: about one
    value in a hundred is one less. The published training guides PAR by these colours (method 4)."""
    mean, std = _pixel_statistics(normalisation, 255, pixels)
    return ((pixels - mean) / std * std + mean).to(torch.uint8).to(pixels.dtype)


def normalise_pixels(image: Tensor, normalisation: Normalisation) -> Tensor:
    """image (B, 3, H, W) in [0, 1] → network input with that mean and standard deviation."""
    mean, std = _pixel_statistics(normalisation, 1, image)
    return (image - mean) / std


def denormalise_pixels(image: Tensor, normalisation: Normalisation) -> Tensor:
    """network input (B, 3, H, W) → image in [0, 1]: the reverse of `normalise_pixels`."""
    mean, std = _pixel_statistics(normalisation, 1, image)
    return image * std + mean


def _pixel_statistics(normalisation: Normalisation, scale: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation times `scale`, each (1, 3, 1, 1)."""
    on_device = _pixel_statistics_on_gpu if like.is_cuda else _pixel_statistics_on
    return on_device(normalisation, scale, like.dtype, like.device)


def _pixel_statistics_on(
    normalisation: Normalisation, scale: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    mean, std = PIXEL_STATISTICS[normalisation]
    mean_tensor, std_tensor = (
        torch.tensor([scale * value for value in values], dtype=dtype, device=device).view(1, 3, 1, 1) for values in (mean, std)
    )
    return mean_tensor, std_tensor


@lru_cache(maxsize=32)
def _pixel_statistics_on_gpu(
    normalisation: Normalisation, scale: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Copied to the GPU once: a copy waits for it."""
    with torch.inference_mode(False):
        return _pixel_statistics_on(normalisation, scale, dtype, device)
