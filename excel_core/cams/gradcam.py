"""GradCAM seeds of a frozen CLIP (CLIP-ES, CVPR 2023; taken over by WeCLIP and WeCLIP+): from a softmax over texts back to
patches."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.models.calibration import merge_heads
from excel_core.models.clip import FrozenClip, QueryKeyValue

__all__ = ["GradCam", "gradcam_seeds"]

EPSILON = 1e-7  # added to a map's range before it divides


@dataclass(frozen=True)
class GradCam:
    """GradCAM of B images under K class slots and Z background prompts, M = h*w patches. Nothing carries a gradient.

    activations a (B, D_s, h, w): LN1's output in the last block. weights w (B, K, D_s): mean over patches of dp_k/da. raw
    (B, K, h, w): sum over channels of w a, of either sign. seeds (B, K, h, w) in [0, 1]: its positive part, scaled. An empty
    slot has zeros in all of them. probabilities p (B, K+Z), which sum to 1. attention (B, N, N): the last block's q-k
    attention, mean over heads. embedding f (B, D), unit over D: the image as it was compared with the texts.
    """

    activations: Tensor
    weights: Tensor
    raw: Tensor
    seeds: Tensor
    probabilities: Tensor
    attention: Tensor
    embedding: Tensor


def gradcam_seeds(
    clip: FrozenClip, tokens: Tensor, grid: tuple[int, int], text: Tensor, classes: int, class_of_slot: Tensor
) -> GradCam:
    """Tokens that enter the last block → GradCam of every image's own classes, the images of a batch together.

    Arguments:
        tokens: (B, 1 + h*w, D_s), class token first.
        grid: rows h and columns w of patches.
        text: (C+Z, D) unit rows, those of C = `classes` before Z background prompts.
        class_of_slot: (B, K) int64 class indices, -1 in an empty slot (`pseudo_labels.class_slots`).

    An image is compared with its own classes and all background prompts; the softmax knows no other class. Works inside
    `no_grad` and `inference_mode`, and passes nothing between the device and the host, so that a CUDA graph may hold it.
    ModelError where the CLIP has no logit scale.
    """
    # Autograd takes no tensor that was made in inference mode, so both are copied outside it.
    with torch.inference_mode(False), torch.no_grad():
        tokens, text = tokens.clone(), text.to(tokens.dtype, copy=True)
        last_block = _attend(clip, tokens)
        with torch.enable_grad():
            attended = last_block.attended.requires_grad_()
            embedding = _embedding(clip, tokens, attended)
            logits = clip.logit_scale * embedding @ text.T
            own_logits = logits[:, :classes].gather(1, class_of_slot.clamp_min(0))
            own_logits = own_logits.masked_fill(class_of_slot < 0, float("-inf"))
            probabilities = torch.softmax(torch.cat([own_logits, logits[:, classes:]], dim=1).float(), dim=1)
            gradients = _class_gradients(probabilities[:, : class_of_slot.shape[1]], attended)
        weights = _summed_over_patches(clip, last_block, gradients) / (tokens.shape[1] - 1)
    activations = last_block.normalised[:, 1:].mT
    raw = weights @ activations
    # Scaled twice as published, which moves nothing but the last digits.
    seeds = _from_zero_to_one(_from_zero_to_one(raw.clamp_min(0)))
    return GradCam(
        activations.unflatten(-1, grid),
        weights,
        raw.unflatten(-1, grid),
        seeds.unflatten(-1, grid),
        probabilities.detach(),
        last_block.weights.mean(dim=1),
        embedding.detach(),
    )


@dataclass(frozen=True)
class _Attended:
    """The last block as far as its attention: normalised a (B, N, D_s), queries, keys and values of its heads, softmax weights
    (B, H, N, N), and what the patches attend to (B, M, D_s), heads side by side."""

    normalised: Tensor
    heads: QueryKeyValue
    weights: Tensor
    attended: Tensor


def _attend(clip: FrozenClip, tokens: Tensor) -> _Attended:
    layer = clip.blocks[-1]
    normalised = layer.ln_1(tokens)
    heads = clip.split_heads(F.linear(normalised, layer.attn.in_proj_weight, layer.attn.in_proj_bias))
    weights = torch.softmax(heads.q * heads.q.shape[-1] ** -0.5 @ heads.k.mT, dim=-1)
    return _Attended(normalised, heads, weights, merge_heads(weights[:, :, 1:] @ heads.v))


def _embedding(clip: FrozenClip, tokens: Tensor, attended: Tensor) -> Tensor:
    """tokens (B, N, D_s), attended (B, M, D_s) → f (B, D) of unit length. As published, it is the mean over patches, not the
    class token, whose own way through the block is therefore left out."""
    block = len(clip.blocks) - 1
    patches = tokens[:, 1:] + clip.attention_output(block, attended)
    patches = patches + clip.mlp(block, patches)
    return F.normalize(clip.visual.ln_post(patches).mean(dim=1) @ clip.visual.proj, dim=-1)


def _class_gradients(probabilities: Tensor, attended: Tensor) -> Tensor:
    """probabilities (B, K), attended (B, M, D_s) → gradients (B, K, M, D_s) of every image's every class.

    An image's probabilities know no other image, so slot k of all images is one backward pass. All slots in one, by vmap or by
    repeating the images, take up to 1.9 times as long on a CPU (4 classes, ViT-B/16, 768 patches).
    """
    slots = probabilities.sum(dim=0)
    return torch.stack([torch.autograd.grad(slot, attended, retain_graph=True)[0] for slot in slots], dim=1)


def _summed_over_patches(clip: FrozenClip, last: _Attended, gradients: Tensor) -> Tensor:
    """gradients (B, K, M, D_s) at what the patches attend to → those at a, summed over the patches, (B, K, D_s).

    GradCAM needs no more than this sum, and it is far cheaper than its terms: of the attention's backward pass, one product
    with N x N weights is left of four, and the projection's is of one vector a class. With A the weights, O = A v, dO the
    gradients and S the scores, dS_ij = A_ij (dO_i·v_j - dO_i·O_i), so that, i and j over patches and j = 0 the class token,

        sum_j dv_j = sum_j G_j                          G = A^T dO
        sum_i dq_i ~ sum_j (G_j·v_j - (A^T r)_j) k_j    r_i = dO_i·O_i, j over all tokens
        sum_j dk_j ~ sum_i A_i0 (r_i - dO_i·v_0) q_i    for a row of dS sums to 0
    """
    q, k, v = last.heads.q, last.heads.k, last.heads.v  # (B, H, N, d)
    B, K, M, _ = gradients.shape
    H, d = q.shape[1], q.shape[-1]
    d_out = gradients.reshape(B, K, M, H, d).permute(0, 3, 1, 2, 4)  # dO (B, H, K, M, d)
    attended = last.attended.detach().reshape(B, M, H, d).transpose(1, 2)  # O (B, H, M, d)
    along = (d_out * attended[:, :, None]).sum(dim=-1)  # r (B, H, K, M)
    columns = torch.cat([d_out, along[..., None]], dim=-1).transpose(2, 3).flatten(3)  # (B, H, M, K (d+1))
    back = (last.weights[:, :, 1:].mT @ columns).unflatten(-1, (K, d + 1))  # A^T [dO, r], (B, H, N, K, d+1)
    toward_keys = (back[..., :d] * v[:, :, :, None]).sum(dim=-1) - back[..., d]  # (B, H, N, K)
    toward_class = last.weights[:, :, None, 1:, 0] * (along - (d_out * v[:, :, None, :1]).sum(dim=-1))  # (B, H, K, M)
    summed_q = d**-0.5 * (toward_keys.mT @ k)  # (B, H, K, d)
    summed_k = d**-0.5 * (toward_class @ q[:, :, 1:])
    summed_v = back[:, :, 1:, :, :d].sum(dim=2)
    summed = torch.cat([merge_heads(part) for part in (summed_q, summed_k, summed_v)], dim=-1)
    projection: Tensor = clip.blocks[-1].attn.in_proj_weight
    return summed @ projection.to(summed)


def _from_zero_to_one(maps: Tensor) -> Tensor:
    """maps (B, K, M) → (x - min x) / (1e-7 + max(x - min x)) over the patches."""
    shifted = maps - maps.amin(dim=-1, keepdim=True)
    return shifted / (EPSILON + shifted.amax(dim=-1, keepdim=True))
