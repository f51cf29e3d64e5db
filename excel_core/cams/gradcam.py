"""GradCAM seeds of a frozen CLIP (CLIP-ES, CVPR 2023; taken over by WeCLIP and WeCLIP+): from a softmax over texts back to
patches."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.models.calibration import merge_heads
from excel_core.models.clip import FrozenClip

__all__ = ["GradCam", "gradcam_seeds"]

EPSILON = 1e-7  # added to a map's range before it divides


@dataclass(frozen=True)
class GradCam:
    """GradCAM of B images under K class slots and Z background prompts, M = h*w patches. Nothing carries a gradient.

    activations a (B, D_s, h, w): LN1's output in the last block. weights w (B, K, D_s): mean over patches of dp_k/da. raw
    (B, K, h, w): sum over channels of w a, of either sign. seeds (B, K, h, w) in [0, 1]: its positive part, scaled. An empty
    slot has zeros in all of them. probabilities p (B, K+Z), which sum to 1. attention (B, N, N): the last block's q-k
    attention, mean over heads.
    """

    activations: Tensor
    weights: Tensor
    raw: Tensor
    seeds: Tensor
    probabilities: Tensor
    attention: Tensor


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
    with torch.inference_mode(False), torch.enable_grad():
        tokens, text = tokens.detach().clone(), text.to(tokens.dtype, copy=True)
        shift, last = _shifted_last_block(clip, tokens)
        logits = clip.logit_scale * last.embedding @ text.T
        own = logits[:, :classes].gather(1, class_of_slot.clamp_min(0))
        own = own.masked_fill(class_of_slot < 0, float("-inf"))
        probabilities = torch.softmax(torch.cat([own, logits[:, classes:]], dim=1).float(), dim=1)
        weights = _class_gradients(probabilities[:, : class_of_slot.shape[1]], shift) / (tokens.shape[1] - 1)
    activations = last.normalised.detach()[:, 1:].mT
    raw = weights @ activations
    # Scaled twice as published, which moves nothing but the last digits.
    seeds = _from_zero_to_one(_from_zero_to_one(raw.clamp_min(0)))
    return GradCam(
        activations.unflatten(-1, grid),
        weights,
        raw.unflatten(-1, grid),
        seeds.unflatten(-1, grid),
        probabilities.detach(),
        last.attention.detach(),
    )


@dataclass(frozen=True)
class _LastBlock:
    """normalised a (B, N, D_s); attention (B, N, N), mean over heads; embedding f (B, D) of unit length."""

    normalised: Tensor
    attention: Tensor
    embedding: Tensor


def _shifted_last_block(clip: FrozenClip, tokens: Tensor) -> tuple[Tensor, _LastBlock]:
    """tokens (B, N, D_s) → a zero shift (B, 1, D_s) of all patches of a at once, and the last block under it.

    The gradient at the shift is the sum over patches of that at a, which is all that GradCAM needs. It enters q, k and v
    through its own projection, so the backward pass sums over patches before that product, not after it.
    """
    block = len(clip.blocks) - 1
    layer = clip.blocks[block]
    normalised = layer.ln_1(tokens)
    shift = torch.zeros_like(normalised[:, :1]).requires_grad_()
    projected = F.linear(normalised, layer.attn.in_proj_weight, layer.attn.in_proj_bias)
    moved = projected[:, 1:] + F.linear(shift, layer.attn.in_proj_weight)
    heads = clip.split_heads(torch.cat([projected[:, :1], moved], dim=1))
    attention = torch.softmax(heads.q * heads.q.shape[-1] ** -0.5 @ heads.k.mT, dim=-1)
    # As published, f is the mean over patches, not the class token, whose own way through the block therefore ends here.
    patches = tokens[:, 1:] + clip.attention_output(block, merge_heads(attention[:, :, 1:] @ heads.v))
    patches = patches + clip.mlp(block, patches)
    embedding = clip.visual.ln_post(patches).mean(dim=1) @ clip.visual.proj
    return shift, _LastBlock(normalised, attention.mean(dim=1), F.normalize(embedding, dim=-1))


def _class_gradients(probabilities: Tensor, shift: Tensor) -> Tensor:
    """probabilities (B, K), shift (B, 1, D_s) → gradients (B, K, D_s) of every image's every class.

    An image's probabilities know no other image, so slot k of all images is one backward pass. All slots in one, by vmap or by
    repeating the images, take up to 1.9 times as long on a CPU (4 classes, ViT-B/16, 768 patches).
    """
    gradients = [torch.autograd.grad(slot.sum(), shift, retain_graph=True)[0][:, 0] for slot in probabilities.unbind(dim=1)]
    return torch.stack(gradients, dim=1)


def _from_zero_to_one(maps: Tensor) -> Tensor:
    """maps (B, K, M) → (x - min x) / (1e-7 + max(x - min x)) over the patches."""
    shifted = maps - maps.amin(dim=-1, keepdim=True)
    return shifted / (EPSILON + shifted.amax(dim=-1, keepdim=True))
