"""What makes CAMs, by `cams.producer`: patches compared with texts (ExCEL, MaskCLIP), or GradCAM (CLIP-ES).

A producer takes network input and the classes of each image, and gives CAMs of these classes alone, and the attention that
refines them. Stages and parity call `seed_cams`; whoever adds a producer writes one function of its form and names it here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from excel_core.cams.affinity import mean_attention, scale_attention
from excel_core.cams.cam_model import CamModel
from excel_core.cams.gradcam import GradCam, gradcam_seeds
from excel_core.cams.pseudo_labels import cams_of_slots
from excel_core.cams.seeds import static_cams
from excel_core.config import RefineSpec
from excel_core.models.calibration import EncoderActivations, encoder_activations

__all__ = ["GradCamPass", "SeedCams", "gradcam_pass", "seed_cams"]


@dataclass(frozen=True)
class SeedCams:
    """cams (B, K, h, w) float32 in [0, 1] of each image's K class slots, zeros in empty ones; attention (B, M, M) between the
    M = h*w patches, None where no refinement was asked for."""

    cams: Tensor
    attention: Tensor | None


def seed_cams(cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, refine: RefineSpec | None = None) -> SeedCams:
    """network input (B, 3, H', W'), `class_slots` (B, K) on its device → SeedCams by the spec's producer; with `refine`, also
    the attention that it takes."""
    return PRODUCERS[cam_model.spec.producer](cam_model, network_input, class_of_slot, refine)


def _patch_text(cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, refine: RefineSpec | None) -> SeedCams:
    seeds = static_cams(cam_model, network_input, refine)
    return SeedCams(cams_of_slots(seeds.cams, class_of_slot), seeds.attention)


def _gradcam(cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, refine: RefineSpec | None) -> SeedCams:
    layers = 0 if refine is None else refine.affinity.layers
    passed = gradcam_pass(cam_model, network_input, class_of_slot, layers)
    if refine is None:
        return SeedCams(passed.gradcam.seeds, None)
    scaled = scale_attention(passed.attention, cam_model.clip.heads, cam_model.spec.calibration, refine.affinity)
    return SeedCams(passed.gradcam.seeds, mean_attention(scaled, refine.affinity))


@dataclass(frozen=True)
class GradCamPass:
    """The tower as far as the last block, GradCAM of that one, and attention (A, B, N, N) of the last A blocks, the last one's
    included: means over heads."""

    activations: EncoderActivations
    gradcam: GradCam
    attention: Tensor


def gradcam_pass(cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, attention_layers: int) -> GradCamPass:
    """network input (B, 3, H', W'), `class_slots` (B, K) → GradCamPass. The last block runs inside GradCAM alone."""
    clip = cam_model.clip
    activations = encoder_activations(clip, network_input, None, attention_layers, blocks=len(clip.blocks) - 1)
    gradcam = gradcam_seeds(clip, activations.outputs[-1], activations.grid, cam_model.text, cam_model.classes, class_of_slot)
    return GradCamPass(activations, gradcam, torch.cat([activations.attention, gradcam.attention[None]]))


Producer = Callable[[CamModel, Tensor, Tensor, RefineSpec | None], SeedCams]
PRODUCERS: dict[str, Producer] = {"patch_text": _patch_text, "gradcam": _gradcam}
