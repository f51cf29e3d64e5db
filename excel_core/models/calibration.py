"""Static and learnable visual calibration (ExCEL eqs. 5, 6, 8-10).

Two steps, so that static and dynamic CAMs share the expensive one. `encoder_activations` runs the frozen tower once and keeps
what later steps need. `calibrated_features` runs the attention-only path of the last blocks on that, with the learnt relation
(LVC) or without (SVC).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import CalibrationSpec
from excel_core.distributed import global_sum, process_group
from excel_core.errors import SettingError
from excel_core.models.attention_variants import middle_blocks, neighbour_attention, with_middle_attention
from excel_core.models.clip import FrozenClip, QueryKeyValue

__all__ = [
    "MIXING", "EncoderActivations", "Relation", "calibrated_features", "encoder_activations", "layer_features",
    "proxy_features", "relation_of",
]  # fmt: skip

MIXING = ("svc", "kk")  # attentions of the calibrated path that mix tokens over heads, as the published code does


@dataclass(frozen=True)
class IntraCorrelation:
    """A calibrated block's values (B, N, D_s), heads merged, and the intra-correlation A_svc (B, H, N, N) that mixes them, or
    another attention in its place: (B, 1, N, N) where one map serves all heads, None where every token keeps its own value."""

    values: Tensor
    weights: Tensor | None


@dataclass(frozen=True)
class EncoderActivations:
    """Activations of the plain forward pass of L blocks, or of all but the last, over tokens (B, N, D_s).

    inputs[l] is the input of block l+1, outputs[l] its output, residuals[l] its tokens after attention and before the MLP.
    Outputs and residuals of the last block hold the class token alone, (B, 1, D_s), unless computed `with_patch_tokens`.
    attention (A, B, N, N): q-k attention of the last A blocks, mean over heads. intra_correlations: of the calibrated blocks,
    in order. grid: rows and columns of patches.
    """

    inputs: tuple[Tensor, ...]
    residuals: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attention: Tensor
    intra_correlations: tuple[IntraCorrelation, ...]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Relation:
    """Learnt relation between patches, (B, h*w, h*w): `raw` r (eq. 8), and `probability` R̂ in [0, 1] that two are of one
    class."""

    raw: Tensor
    probability: Tensor

    def detach(self) -> "Relation":
        """The same values outside the gradient's graph."""
        return Relation(self.raw.detach(), self.probability.detach())


def encoder_activations(
    clip: FrozenClip,
    image: Tensor,
    spec: CalibrationSpec | None,
    attention_layers: int = 6,
    with_patch_tokens: bool = True,
    blocks: int | None = None,
) -> EncoderActivations:
    """image (B, 3, S, S') normalised, sides multiples of the patch → EncoderActivations. Plain CLIP, nothing calibrated.

    Arguments:
        spec: the calibration that `calibrated_features` will be called with; None for none.
        attention_layers: number A of last blocks whose q-k attention is kept.
        with_patch_tokens: compute the last block's patch tokens, too. The neck reads them, calibrated CAMs do not.
        blocks: run the first so many alone, and keep nothing of the others; None: all.

    SettingError for a side that is no multiple of the patch, and for a depth of more blocks than the CLIP has.
    """
    if image.shape[-1] % clip.patch or image.shape[-2] % clip.patch:
        raise SettingError(f"image size {tuple(image.shape[-2:])} must be a multiple of the patch size {clip.patch}")
    count, depth = len(clip.blocks), 0 if spec is None or spec.attention in ("qk", "proxy") else spec.depth
    if depth > count:
        raise SettingError(f"cams.calibration.depth must be at most the {count} blocks of {clip.name}, got {depth}")
    grid = (image.shape[-2] // clip.patch, image.shape[-1] // clip.patch)
    tokens = clip.tokens(image)
    inputs, residuals, outputs, attention, intra_correlations, middle = [], [], [], [], [], []
    middle_range = middle_blocks(count) if spec is not None and spec.middle_share else range(0)
    for block in range(count if blocks is None else blocks):
        inputs.append(tokens)
        heads = clip.qkv(block, tokens)
        if spec is not None and block >= count - depth:
            intra_correlations.append(_intra_correlation(heads, spec, grid))
        if block == count - 1 and not with_patch_tokens:
            tokens = tokens[:, :1]  # no calibrated CAM looks at the others
        query = heads.q[:, :, : tokens.shape[1]]
        if block >= count - attention_layers or block in middle_range:
            # Written out, for the fused attention does not return its weights.
            weights = torch.softmax(heads.q @ heads.k.mT * heads.q.shape[-1] ** -0.5, dim=-1)
            attended = weights[:, :, : tokens.shape[1]] @ heads.v
            mean = weights.mean(dim=1)
            attention += [mean] if block >= count - attention_layers else []
            middle += [mean] if block in middle_range else []
        else:
            attended = F.scaled_dot_product_attention(query, heads.k, heads.v)
        tokens = tokens + clip.attention_output(block, merge_heads(attended))
        residuals.append(tokens)
        tokens = tokens + clip.mlp(block, tokens)
        outputs.append(tokens)
    if spec is not None and middle:
        added = torch.stack(middle).mean(dim=0)
        intra_correlations = [_with_middle(intra, added, spec, clip.heads) for intra in intra_correlations]
    N = inputs[0].shape[1]
    stacked = torch.stack(attention) if attention else tokens.new_empty(0, image.shape[0], N, N)
    return EncoderActivations(tuple(inputs), tuple(residuals), tuple(outputs), stacked, tuple(intra_correlations), grid)


def calibrated_features(
    clip: FrozenClip, activations: EncoderActivations, spec: CalibrationSpec, relation: Relation | None = None
) -> Tensor:
    """Activations made with this `spec` → final tokens (B, N, D_s) before the last LayerNorm.

    The class token is the original path's, the patch tokens are the calibrated path's: x <- x + proj(A v) over the last
    `spec.depth` blocks, MLP skipped, q, k, v of the original path (eqs. 5, 6). With `relation`, the softmax over each row's
    non-negative r is added to the patch-patch block of every head's map (eqs. 9, 10).
    """
    if spec.attention == "qk":
        return activations.outputs[-1]
    first = len(clip.blocks) - spec.depth
    learnt = None if relation is None else relation_attention(relation.raw)
    # Patches alone: q, k, v are the original path's, so no patch looks at the calibrated path's class token.
    patches = activations.inputs[first][:, 1:]
    for block, intra in enumerate(activations.intra_correlations, first):
        patches = patches + clip.attention_output(block, _mixed(intra, learnt, clip.heads, spec))
    return torch.cat([activations.outputs[-1][:, :1], patches], dim=1)


def proxy_features(clip: FrozenClip, activations: EncoderActivations, attention: Tensor) -> Tensor:
    """Activations, and `proxy_attention` (B, M, M) of a second encoder → final tokens (B, N, D_s) before the last LayerNorm:
    the class token is the original path's; a patch is proj(A v) of the last block, without residual and MLP (ProxyCLIP)."""
    last = len(clip.blocks) - 1
    values = merge_heads(clip.qkv(last, activations.inputs[last]).v)
    patches = clip.attention_output(last, attention.to(values.dtype) @ values[:, 1:])
    return torch.cat([activations.outputs[-1][:, :1], patches], dim=1)


def _mixed(intra: IntraCorrelation, learnt: Tensor | None, heads: int, spec: CalibrationSpec) -> Tensor:
    """Patch tokens (B, M, D_s) of a block: A_svc v, or (A_svc + learnt) v with the `learnt` attention (B, M, M) (eq. 10)."""
    if intra.weights is None:
        return intra.values[:, 1:]
    if spec.heads == "each":
        values = intra.values.unflatten(-1, (heads, -1)).transpose(1, 2)
        mixed = intra.weights[:, :, 1:] @ values
        return merge_heads(mixed if learnt is None else mixed + learnt[:, None] @ values[:, :, 1:])
    # Published: the heads' maps are summed and the one map mixes every head's values, so its rows sum to H, not to 1.
    mixed = intra.weights[:, 0, 1:] @ intra.values
    if learnt is None:
        return mixed
    copies = heads if spec.heads == "sum" else 1  # `learnt` is added to each head's map before the sum
    return mixed + copies * (learnt @ intra.values[:, 1:])


def _with_middle(intra: IntraCorrelation, middle: Tensor, spec: CalibrationSpec, heads: int) -> IntraCorrelation:
    """The block's map with the middle blocks' attention (B, N, N); a block whose tokens keep their values has no map."""
    if intra.weights is None:
        return intra
    return IntraCorrelation(intra.values, with_middle_attention(intra.weights, middle, spec, heads))


def merge_heads(heads: Tensor) -> Tensor:
    """(B, H, N, D_s/H) → (B, N, D_s)."""
    return heads.transpose(1, 2).flatten(2)


def _intra_correlation(heads: QueryKeyValue, spec: CalibrationSpec, grid: tuple[int, int]) -> IntraCorrelation:
    """A_svc = (SA(q,q) + SA(k,k) + SA(v,v)) / 3 of a block (eq. 5), SA(o,o) = softmax(o o^T / sqrt(width of o)): a map for each
    head; their sum over heads (published); or one map of the whole width, as the equation is printed. With 'kk', NACLIP's map
    in its place."""
    values = merge_heads(heads.v)
    if spec.attention == "v":
        return IntraCorrelation(values, None)
    projections = [heads.q, heads.k, heads.v]
    if spec.heads == "whole":
        projections = [merge_heads(projection)[:, None] for projection in projections]
    if spec.attention == "kk":
        nearby = neighbour_attention(projections[1], grid, spec.gaussian_window)
        return IntraCorrelation(values, nearby.sum(dim=1, keepdim=True) if spec.heads == "sum" else nearby)
    total, scale = None, projections[0].shape[-1] ** -0.5
    for o in projections:
        weights = torch.softmax(o * scale @ o.mT, dim=-1)
        if spec.heads == "sum":
            weights = weights.sum(dim=1, keepdim=True)
        total = weights if total is None else total.add_(weights)
    assert total is not None
    return IntraCorrelation(values, total.div_(len(projections)))


def layer_features(activations: EncoderActivations, calibrated: Tensor, spec: CalibrationSpec) -> Tensor:
    """Token features (L, B, N, D_s) of all blocks: the neck's input. `calibrated` (B, N, D_s) are the final tokens.

    'true': the blocks' outputs. 'published': what in-place updates leave of them in the published code (method 5).
    """
    outputs = list(activations.outputs)
    count = len(outputs)
    if spec.layers == "published" and spec.attention in MIXING:
        first = count - spec.depth
        # The calibrated path starts from this output and adds to it in place, so it ends as the final calibrated tokens.
        if first > 0:
            outputs[first - 1] = calibrated
        # The next block adds its attention in place to the output it is given; the last block has none after it.
        for block in range(first, count - 1):
            outputs[block] = activations.residuals[block + 1]
    return torch.stack(outputs)


def relation_of(features: Tensor, spec: CalibrationSpec, images_per_mean: int | None = None) -> Relation:
    """features F_d (B, D_d, h, w) → relation r = 3 (cos - mean cos) and probability R̂, (B, h*w, h*w) (eqs. 8, 11). With
    probability "inner_product" (WeCLIP) r is the features' inner product, as it is, and R̂ its sigmoid.

    The mean is each image's own ('image'), or ('batch') that of `images_per_mean` images in a row, of the process group's whole
    batch where None. R̂ is the sigmoid of r (published), or of the cosine alone.
    """
    if spec.probability == "inner_product":
        raw = features.flatten(2).mT @ features.flatten(2)
        return Relation(raw, torch.sigmoid(raw))
    unit = F.normalize(features.flatten(2), dim=1)
    cosine = unit.mT @ unit
    if spec.relation_mean == "image":
        mean = cosine.mean(dim=(1, 2), keepdim=True)
    elif images_per_mean is None:
        # Published, by accident: an image's relation depends on the other images of its batch.
        mean = global_sum(cosine.mean()) / process_group().world_size  # all ranks' shares are of one size
    else:
        means = cosine.unflatten(0, (-1, images_per_mean)).mean(dim=(1, 2, 3))
        mean = means.repeat_interleave(images_per_mean).view(-1, 1, 1)
    raw = 3 * (cosine - mean)
    return Relation(raw, torch.sigmoid(raw if spec.probability == "relation" else cosine))


def relation_attention(raw: Tensor) -> Tensor:
    """raw r (B, M, M) → row softmax over its non-negative entries, zero elsewhere (eq. 9)."""
    return torch.softmax(raw.masked_fill(raw < 0, float("-inf")), dim=-1)
