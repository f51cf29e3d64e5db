"""Static and learnable visual calibration (ExCEL eqs. 5, 6, 8-10).

Two steps, so that static and dynamic CAMs share the expensive one: `original_path` runs the frozen tower once and
keeps what later steps need; `calibrated_features` runs the attention-only path of the last blocks on it, with the
learnt relation (LVC) or without (SVC).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from excel_core.clip import FrozenClip
from excel_core.config import CalibrationSpec
from excel_core.distributed import global_sum, team
from excel_core.errors import SettingError

__all__ = ["OriginalPath", "Relation", "calibrated_features", "layer_features", "original_path", "relation_of"]


@dataclass(frozen=True)
class OriginalPath:
    """What the plain forward pass of L blocks over (B, N, D_s) tokens leaves behind.

    outputs[l] is the true output of block l+1; residuals[l] the same block after attention and before its MLP;
    inputs[l] its input. attention (A, B, N, N): q-k attention of the last A blocks, mean over heads.
    """

    inputs: tuple[Tensor, ...]
    residuals: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attention: Tensor
    grid: tuple[int, int]


@dataclass(frozen=True)
class Relation:
    """Learnt relation between patches: r (B, h*w, h*w) raw (eq. 8) and probability sigmoid(r)."""

    raw: Tensor
    probability: Tensor

    def detach(self) -> "Relation":
        """The same values outside the gradient's graph."""
        return Relation(self.raw.detach(), self.probability.detach())


def original_path(clip: FrozenClip, image: Tensor, attention_layers: int = 6) -> OriginalPath:
    """image (B, 3, S, S') normalised, S a multiple of the patch → OriginalPath. Plain CLIP, nothing calibrated."""
    if image.shape[-1] % clip.patch or image.shape[-2] % clip.patch:
        raise SettingError(f"image size {tuple(image.shape[-2:])} must be a multiple of the patch size {clip.patch}")
    count = len(clip.blocks)
    tokens = clip.tokens(image)
    inputs, residuals, outputs, attention = [], [], [], []
    for block in range(count):
        inputs.append(tokens)
        heads = clip.qkv(block, tokens)
        if block >= count - attention_layers:
            weights = torch.softmax(heads.q @ heads.k.mT * heads.q.shape[-1] ** -0.5, dim=-1)
            attended = weights @ heads.v
            attention.append(weights.mean(dim=1))
        else:
            attended = torch.nn.functional.scaled_dot_product_attention(heads.q, heads.k, heads.v)
        tokens = tokens + clip.attention_output(block, attended)
        residuals.append(tokens)
        tokens = tokens + clip.mlp(block, tokens)
        outputs.append(tokens)
    grid = (image.shape[-2] // clip.patch, image.shape[-1] // clip.patch)
    B, N, _ = tokens.shape
    kept = torch.stack(attention) if attention else tokens.new_empty(0, B, N, N)
    return OriginalPath(tuple(inputs), tuple(residuals), tuple(outputs), kept, grid)


def calibrated_features(
    clip: FrozenClip, path: OriginalPath, spec: CalibrationSpec, relation: Relation | None = None
) -> Tensor:
    """Final tokens (B, N, D_s) before the last LayerNorm: original class token, calibrated patch tokens.

    x <- x + proj(A v) over the last `spec.depth` blocks, MLP skipped; q, k, v from the original path (eqs. 5, 6).
    With `relation`, softmax over each row's non-negative r is added to every head's patch-patch block (eqs. 9, 10).
    """
    if spec.attention == "qk":
        return path.outputs[-1]
    count = len(clip.blocks)
    if not spec.depth <= count:
        raise SettingError(f"cams.calibration.depth must be at most the {count} blocks of {clip.name}, got {spec.depth}")
    extra = None if relation is None else relation_attention(relation.raw)
    tokens = path.inputs[count - spec.depth]
    for block in range(count - spec.depth, count):
        heads = clip.qkv(block, path.inputs[block])
        if spec.attention == "v":
            attended = heads.v  # every token attends to itself alone
        else:
            weights = intra_correlation(heads.q, heads.k, heads.v)
            if extra is not None:
                weights[:, :, 1:, 1:] += extra[:, None]
            if spec.heads == "sum":  # published: one map, summed over heads, for every head's values
                weights = weights.sum(dim=1, keepdim=True)
            attended = weights @ heads.v
        tokens = tokens + clip.attention_output(block, attended)
    return torch.cat([path.outputs[-1][:, :1], tokens[:, 1:]], dim=1)


def intra_correlation(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k, v (B, H, N, d) → A_svc (B, H, N, N) = (SA(q,q) + SA(k,k) + SA(v,v)) / 3, rows sum to 1 (eq. 5)."""
    scale = q.shape[-1] ** -0.5
    total = torch.softmax(q @ q.mT * scale, dim=-1)
    for o in (k, v):
        total += torch.softmax(o @ o.mT * scale, dim=-1)
    return total / 3


def layer_features(path: OriginalPath, calibrated: Tensor, spec: CalibrationSpec) -> Tensor:
    """Token features (L, B, N, D_s) of all blocks, the neck's input.

    'true': the blocks' outputs. 'published': the accident of in-place updates, by which the output of the last block
    before the calibrated ones is the final calibrated tensor, and the calibrated ones but the last already hold the
    next block's attention residual (method 5).
    """
    outputs = list(path.outputs)
    count = len(outputs)
    if spec.layers == "published" and spec.attention == "svc":
        first = count - spec.depth
        if first > 0:
            outputs[first - 1] = calibrated
        for block in range(first, count - 1):
            outputs[block] = path.residuals[block + 1]
    return torch.stack(outputs)


def relation_of(features: Tensor, spec: CalibrationSpec) -> Relation:
    """features F_d (B, D_d, h, w) → relation r = 3 (cos - mean cos) and its sigmoid, (B, h*w, h*w) (eq. 8).

    The mean runs over the whole batch, the team's ('batch', published: an image depends on its batch mates), or each image.
    """
    unit = torch.nn.functional.normalize(features.flatten(2), dim=1)
    cosine = unit.mT @ unit
    # All processes' shares are of one size.
    whole = spec.relation_mean == "batch"
    mean = global_sum(cosine.mean()) / team().world if whole else cosine.mean(dim=(1, 2), keepdim=True)
    raw = 3 * (cosine - mean)
    return Relation(raw, torch.sigmoid(raw))


def relation_attention(raw: Tensor) -> Tensor:
    """raw r (B, M, M) → row softmax over its non-negative entries, zero elsewhere (eq. 9)."""
    return torch.softmax(raw.masked_fill(raw < 0, float("-inf")), dim=-1)
