"""The tiny CLIP while it is trained: its encoders as open_clip has them, of some patches and of short texts, and its loss."""

import json
import math
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.models.clip_names import BUILT_IN_FOLDER

__all__ = [
    "WEIGHTS_PATH", "build_model", "encode_phrases", "encode_views", "fit_bias", "normalise_views", "phrase_loss",
]  # fmt: skip

CONFIG_PATH, WEIGHTS_PATH = BUILT_IN_FOLDER / "tiny_clip.json", BUILT_IN_FOLDER / "tiny_clip.safetensors"


def build_model() -> Any:
    """An open_clip CLIP as tiny_clip.json says, with fresh weights."""
    config = json.loads(CONFIG_PATH.read_text(encoding="utf-8"))
    return open_clip.CLIP(**config)


def encode_views(model: Any, images: Tensor, patches: Tensor) -> Tensor:
    """images (B, 3, V, V) normalised; patches (B, K) their numbers → unit embeddings (B, D) from those patches alone."""
    visual = model.visual
    tokens = visual.conv1(images).flatten(2).mT
    stored, cells = visual.positional_embedding, math.isqrt(tokens.shape[1])
    # The stored positions are of one grid; a larger view needs them resized, as in the frozen encoder.
    grid = stored[1:].reshape(1, *visual.grid_size, -1).permute(0, 3, 1, 2)
    if cells != grid.shape[-1]:
        grid = F.interpolate(grid, size=(cells, cells), mode="bilinear", align_corners=False)
    tokens = tokens + grid.flatten(2).mT
    tokens = tokens.gather(1, patches[..., None].expand(-1, -1, tokens.shape[2]))
    first = (visual.class_embedding + stored[0]).expand(len(tokens), 1, -1)
    tokens = visual.transformer(visual.ln_pre(torch.cat([first, tokens], dim=1)))
    return F.normalize(visual.ln_post(tokens[:, 0]) @ visual.proj, dim=1)


def encode_phrases(model: Any, tokens: Tensor) -> Tensor:
    """tokens (P, 77) → unit embeddings (P, D). Cut to the longest phrase: exact, as no token looks ahead."""
    ends = tokens.argmax(dim=1)
    length = int(ends.max()) + 1
    states = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(states[torch.arange(len(tokens)), ends] @ model.text_projection, dim=1)


def normalise_views(images: NDArray[np.uint8]) -> Tensor:
    """HWC uint8 batch → (B, 3, V, V) float32 with CLIP's mean and deviation."""
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0 - mean) / deviation


def phrase_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """logits (B, P), truth (B, P) in {1, 0, -1 = left out} → mean over phrases; true and false pairs weigh the same."""
    true, false = (truth == 1).float(), (truth == 0).float()
    # At least a few in the denominator: one lucky positive must not outweigh the whole batch.
    weight = true / true.sum(0).clamp_min(4.0) + false / false.sum(0).clamp_min(4.0)
    return (weight * F.binary_cross_entropy_with_logits(logits, true, reduction="none")).sum() / truth.shape[1]


def fit_bias(logits: Tensor, truth: Tensor) -> float:
    """The bias with the least loss for logits (B, P) without one: a file of weights has the scale alone."""
    tried: list[float] = torch.linspace(-12.0, 4.0, 161).tolist()
    return min(tried, key=lambda bias: phrase_loss(logits + bias, truth).item())
