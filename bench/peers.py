"""The peer methods' cases of `make bench`, beside the published way rebuilt from its description (docs/methods.md)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.alternating import Case
from bench.scene import BACKGROUND, CLASSES, Scene
from excel_core.cams.gradcam import gradcam_seeds
from excel_core.config.presets import preset
from excel_core.models.calibration import encoder_activations
from excel_core.models.clip import FrozenClip, normalise_pixels
from excel_core.models.native_size import native_pixels

__all__ = ["peer_cases", "published_gradcam", "with_logit_scale"]

LOGIT_SCALE = 100.0  # of OpenAI's CLIPs


def peer_cases(scene: Scene, rounds: int) -> Iterator[Case]:
    """GradCAM from the tokens before the last block, of photos at their native size, each with its own classes."""
    clip, text, spec = with_logit_scale(scene.clip), scene.text, preset("voc", "clip_es").cams
    tokens, grids = [], []
    with torch.inference_mode():
        for image in scene.images:
            pixels = normalise_pixels(native_pixels(image, clip.patch, clip.device), spec.normalisation)
            activations = encoder_activations(clip, pixels, None, 0, blocks=len(clip.blocks) - 1)
            tokens.append(activations.outputs[-1])
            grids.append(activations.grid)
    tokens = [each.clone() for each in tokens]  # outside inference mode, which autograd takes nothing from

    def ours(number: int) -> Tensor:
        i = number % len(tokens)
        slots = torch.tensor([scene.classes[i]])
        return gradcam_seeds(clip, tokens[i], grids[i], text, CLASSES, slots).seeds[0].flatten(1)

    for words, with_weights in (("weights' gradients too", True), ("activations' gradients alone", False)):

        def theirs(number: int, with_weights: bool = with_weights) -> Tensor:
            i = number % len(tokens)
            return published_gradcam(clip, tokens[i], text, scene.classes[i], with_weights)

        yield Case(
            f"GradCAM of a photo's classes, published with {words}",
            ours,
            theirs,
            lambda a, b: {"largest difference": float((a - b).abs().max())},
            rounds=max(rounds, len(tokens)),
        )


def with_logit_scale(clip: FrozenClip) -> FrozenClip:
    """The same tower as part of a model that has OpenAI's logit scale, as GradCAM needs it."""
    clip.model.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE).log(), requires_grad=False)
    return clip


def published_gradcam(clip: FrozenClip, tokens: Tensor, text: Tensor, classes: tuple[int, ...], with_weights: bool) -> Tensor:
    """tokens (1, N, D_s) that enter the last block → seeds (K, M): class after class, each with a forward and a backward pass
    of the whole block. `with_weights`: the block's weights keep requires_grad, as the published programs leave them, so that
    autograd computes their gradients too, which nobody reads."""
    layer, visual = clip.blocks[-1], clip.visual
    weights = [*layer.parameters(), *visual.ln_post.parameters(), visual.proj]
    for weight in weights:
        weight.requires_grad_(with_weights)
    rows = torch.cat([text[list(classes)], text[-BACKGROUND:]])
    seeds = []
    with torch.enable_grad():
        for k in range(len(classes)):
            a = layer.ln_1(tokens)
            a = a if a.requires_grad else a.requires_grad_()
            a.retain_grad()
            attended, _ = layer.attn(a, a, a, need_weights=True)
            y = tokens + attended
            y = y + layer.mlp(layer.ln_2(y))
            f = (visual.ln_post(y)[:, 1:] @ visual.proj).mean(dim=1)
            p = torch.softmax(LOGIT_SCALE * F.normalize(f, dim=-1) @ rows.T, dim=-1)
            p[0, k].backward()
            gradient = a.grad
            assert gradient is not None
            w = gradient[0, 1:].mean(dim=0)
            cam = (a[0, 1:].detach() @ w).clamp_min(0)
            for _ in range(2):
                cam = cam - cam.min()
                cam = cam / (1e-7 + cam.max())
            seeds.append(cam)
            for weight in weights:
                weight.grad = None
    for weight in weights:
        weight.requires_grad_(False)
    return torch.stack(seeds)
