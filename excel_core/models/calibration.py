"""Static and learnable visual calibration (ExCEL eqs. 5, 6, 8-10).

Two steps, so that static and dynamic CAMs share the expensive one: `encoder_activations` runs the frozen tower once and keeps what
later steps need; `calibrated_features` runs the attention-only path of the last blocks on it, with the learnt relation (LVC)
or without (SVC).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import CalibrationSpec
from excel_core.distributed import global_sum, process_group
from excel_core.errors import SettingError
from excel_core.models.clip import FrozenClip, QueryKeyValue

__all__ = ["EncoderActivations", "Relation", "calibrated_features", "encoder_activations", "layer_features", "relation_of"]


@dataclass(frozen=True)
class Intra:
    """What a calibrated block mixes: values (B, N, D_s), all heads side by side, and A_svc (B, H, N, N), or (B, 1, N, N) where
    one map serves all heads; None where every token keeps its own value."""

    values: Tensor
    weights: Tensor | None


@dataclass(frozen=True)
class EncoderActivations:
    """What the plain forward pass of L blocks over (B, N, D_s) tokens leaves behind.

    outputs[l] is the true output of block l+1; residuals[l] the same block after attention and before its MLP; inputs[l] its
    input. Of the last block both hold the class token alone, (B, 1, D_s), unless the path is whole. attention (A, B, N, N):
    q-k attention of the last A blocks, mean over heads. intra: the calibrated blocks', in order.
    """

    inputs: tuple[Tensor, ...]
    residuals: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attention: Tensor
    intra: tuple[Intra, ...]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Relation:
    """Learnt relation between patches: r (B, h*w, h*w) raw (eq. 8) and probability R̂ in [0, 1] that two are of one class."""

    raw: Tensor
    probability: Tensor

    def detach(self) -> "Relation":
        """The same values outside the gradient's graph."""
        return Relation(self.raw.detach(), self.probability.detach())


def encoder_activations(
    clip: FrozenClip, image: Tensor, spec: CalibrationSpec | None, attention_layers: int = 6, whole: bool = True
) -> EncoderActivations:
    """image (B, 3, S, S') normalised, S a multiple of the patch → EncoderActivations. Plain CLIP, nothing calibrated.

    `spec`: which calibration `calibrated_features` will be asked for; None for none. `whole`: compute the last block's patch
    tokens, too, which the neck sees and CAMs do not. SettingError where the spec's depth is more than the blocks.
    """
    if image.shape[-1] % clip.patch or image.shape[-2] % clip.patch:
        raise SettingError(f"image size {tuple(image.shape[-2:])} must be a multiple of the patch size {clip.patch}")
    count, depth = len(clip.blocks), 0 if spec is None or spec.attention == "qk" else spec.depth
    if depth > count:
        raise SettingError(f"cams.calibration.depth must be at most the {count} blocks of {clip.name}, got {depth}")
    tokens = clip.tokens(image)
    inputs, residuals, outputs, attention, intra = [], [], [], [], []
    for block in range(count):
        inputs.append(tokens)
        heads = clip.qkv(block, tokens)
        if spec is not None and block >= count - depth:
            intra.append(_intra(heads, spec))
        if block == count - 1 and not whole:
            tokens = tokens[:, :1]
        query = heads.q[:, :, : tokens.shape[1]]
        if block >= count - attention_layers:
            weights = torch.softmax(heads.q @ heads.k.mT * heads.q.shape[-1] ** -0.5, dim=-1)
            attended = weights[:, :, : tokens.shape[1]] @ heads.v
            attention.append(weights.mean(dim=1))
        else:
            attended = F.scaled_dot_product_attention(query, heads.k, heads.v)
        tokens = tokens + clip.attention_output(block, side_by_side(attended))
        residuals.append(tokens)
        tokens = tokens + clip.mlp(block, tokens)
        outputs.append(tokens)
    grid = (image.shape[-2] // clip.patch, image.shape[-1] // clip.patch)
    N = inputs[0].shape[1]
    kept = torch.stack(attention) if attention else tokens.new_empty(0, image.shape[0], N, N)
    return EncoderActivations(tuple(inputs), tuple(residuals), tuple(outputs), kept, tuple(intra), grid)


def calibrated_features(
    clip: FrozenClip, path: EncoderActivations, spec: CalibrationSpec, relation: Relation | None = None
) -> Tensor:
    """Final tokens (B, N, D_s) before the last LayerNorm: original class token, calibrated patch tokens.

    x <- x + proj(A v) over the last `spec.depth` blocks, MLP skipped; q, k, v from the original path (eqs. 5, 6).
    With `relation`, softmax over each row's non-negative r is added to every head's patch-patch block (eqs. 9, 10).
    `path` is one that was made with this spec. No patch looks at the second path's class token, so it is not computed.
    """
    if spec.attention == "qk":
        return path.outputs[-1]
    count = len(clip.blocks)
    extra = None if relation is None else relation_attention(relation.raw)
    patches = path.inputs[count - spec.depth][:, 1:]
    for block, intra in enumerate(path.intra, count - spec.depth):
        if intra.weights is None:
            attended = intra.values[:, 1:]
        elif spec.heads != "each":  # one map for every head's values
            attended = intra.weights[:, 0, 1:] @ intra.values
            if extra is not None:
                copies = clip.heads if spec.heads == "sum" else 1  # added to each head's map before the sum
                attended = attended + copies * (extra @ intra.values[:, 1:])
        else:
            values = intra.values.unflatten(-1, (clip.heads, -1)).transpose(1, 2)
            each = intra.weights[:, :, 1:] @ values
            attended = side_by_side(each if extra is None else each + extra[:, None] @ values[:, :, 1:])
        patches = patches + clip.attention_output(block, attended)
    return torch.cat([path.outputs[-1][:, :1], patches], dim=1)


def side_by_side(heads: Tensor) -> Tensor:
    """(B, H, N, D_s/H) → (B, N, D_s)."""
    return heads.transpose(1, 2).flatten(2)


def _intra(heads: QueryKeyValue, spec: CalibrationSpec) -> Intra:
    """Values of a block, and A_svc = (SA(q,q) + SA(k,k) + SA(v,v)) / 3 (eq. 5): one map for each head; summed over heads
    (published); or of the whole width at once, as the equation is printed."""
    values = side_by_side(heads.v)
    if spec.attention == "v":
        return Intra(values, None)
    kinds = [heads.q, heads.k, heads.v]
    if spec.heads == "whole":
        kinds = [side_by_side(kind)[:, None] for kind in kinds]
    total, scale = None, kinds[0].shape[-1] ** -0.5
    for o in kinds:
        weights = torch.softmax(o * scale @ o.mT, dim=-1)
        if spec.heads == "sum":
            weights = weights.sum(dim=1, keepdim=True)
        total = weights if total is None else total.add_(weights)
    assert total is not None
    return Intra(values, total.div_(3))


def layer_features(path: EncoderActivations, calibrated: Tensor, spec: CalibrationSpec) -> Tensor:
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


def relation_of(features: Tensor, spec: CalibrationSpec, together: int | None = None) -> Relation:
    """features F_d (B, D_d, h, w) → relation r = 3 (cos - mean cos) and probability R̂, (B, h*w, h*w) (eqs. 8, 11).

    The mean is that of each image, or ('batch', published: an image depends on its batch mates) of `together` images in a row;
    None: of the batch of the whole team. R̂ is the sigmoid of r (published), or of the cosine alone.
    """
    unit = F.normalize(features.flatten(2), dim=1)
    cosine = unit.mT @ unit
    if spec.relation_mean == "image":
        mean = cosine.mean(dim=(1, 2), keepdim=True)
    elif together is None:
        mean = global_sum(cosine.mean()) / process_group().world  # all processes' shares are of one size
    else:
        mean = cosine.unflatten(0, (-1, together)).mean(dim=(1, 2, 3)).repeat_interleave(together).view(-1, 1, 1)
    raw = 3 * (cosine - mean)
    return Relation(raw, torch.sigmoid(raw if spec.probability == "relation" else cosine))


def relation_attention(raw: Tensor) -> Tensor:
    """raw r (B, M, M) → row softmax over its non-negative entries, zero elsewhere (eq. 9)."""
    return torch.softmax(raw.masked_fill(raw < 0, float("-inf")), dim=-1)
