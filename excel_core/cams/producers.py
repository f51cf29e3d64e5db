"""What makes CAMs, by `cams.producer`: patches compared with texts (ExCEL, MaskCLIP), or GradCAM (CLIP-ES).

A producer takes network input and the classes of each image, and gives CAMs of these classes alone, and the attention that
refines them. Stages and parity call `seed_cams`; whoever adds a producer writes one function of its form and names it here.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from excel_core.cams.affinity import kept_layers, mean_attention, scale_attention, without_boxes
from excel_core.cams.cam_model import CamModel
from excel_core.cams.gradcam import GradCam
from excel_core.cams.presence import image_embedding
from excel_core.cams.pseudo_labels import cams_of_slots
from excel_core.cams.seeds import learnt_cams, learnt_gradcam, static_cams
from excel_core.config import RefineSpec, RunSpec
from excel_core.models.calibration import EncoderActivations
from excel_core.models.segmenter import Segmenter

__all__ = ["EmbeddedSeeds", "GradCamPass", "SeedCams", "gradcam_pass", "learnt_refine_spec", "learnt_seeds", "seed_cams"]


@dataclass(frozen=True)
class SeedCams:
    """cams (B, K, h, w) float32 in [0, 1] of each image's K class slots, zeros in empty ones; attention (B, M, M) between the
    M = h*w patches, or (B, W, m, m) of W windows of m patches, None where no refinement was asked for."""

    cams: Tensor
    attention: Tensor | None


@dataclass(frozen=True)
class EmbeddedSeeds(SeedCams):
    """Seeds with the image's `embedding` (B, D), unit over D, as its producer compares it with texts: of GradCAM the mean
    over patches, else the class token."""

    embedding: Tensor


def seed_cams(
    cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, refine: RefineSpec | None = None
) -> EmbeddedSeeds:
    """network input (B, 3, H', W'), `class_slots` (B, K) on its device → EmbeddedSeeds by the spec's producer; with `refine`,
    also the attention that it takes."""
    return PRODUCERS[cam_model.spec.producer](cam_model, network_input, class_of_slot, refine)


def _patch_text(cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, refine: RefineSpec | None) -> EmbeddedSeeds:
    seeds = static_cams(cam_model, network_input, refine)
    embedding = image_embedding(cam_model.clip, seeds.activations)
    return EmbeddedSeeds(cams_of_slots(seeds.cams, class_of_slot), seeds.attention, embedding)


def _gradcam(cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, refine: RefineSpec | None) -> EmbeddedSeeds:
    layers = 0 if refine is None else kept_layers(refine.affinity)
    passed = gradcam_pass(cam_model, network_input, class_of_slot, layers)
    gradcam, attention = passed.gradcam, None
    if refine is not None:
        scaled = scale_attention(passed.attention, cam_model.clip.heads, cam_model.spec.calibration, refine.affinity)
        attention = mean_attention(scaled, refine.affinity)
    return EmbeddedSeeds(gradcam.seeds, attention, gradcam.embedding)


@dataclass(frozen=True)
class GradCamPass:
    """The tower as far as the last block, GradCAM of that one, and attention (A, B, N, N) of the last A blocks, the last one's
    included: means over heads."""

    activations: EncoderActivations
    gradcam: GradCam
    attention: Tensor


def gradcam_pass(cam_model: CamModel, network_input: Tensor, class_of_slot: Tensor, attention_layers: int) -> GradCamPass:
    """network input (B, 3, H', W'), `class_slots` (B, K) → GradCamPass. The last block runs inside GradCAM alone."""
    encoded = cam_model.encode(network_input, attention_layers, with_patch_tokens=False, last_block=False)
    gradcam = cam_model.gradcam(encoded, class_of_slot)
    return GradCamPass(encoded.activations, gradcam, cam_model.gradcam_maps(encoded.activations, gradcam))


def learnt_seeds(
    cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, class_of_slot: Tensor, run: RunSpec
) -> SeedCams:
    """As `seed_cams`, with the trained segmenter's relation; to be refined as `learnt_refine_spec` says."""
    if cam_model.spec.producer == "gradcam":
        guided = run.train.guided_from is not None
        seeds = learnt_gradcam(cam_model, segmenter, network_input, class_of_slot, run.refine, guided)
        return SeedCams(seeds.cams, seeds.attention)
    seeds = learnt_cams(cam_model, segmenter, network_input, run.refine, run.dynamic.mirror)
    return SeedCams(cams_of_slots(seeds.cams, class_of_slot), seeds.attention)


def learnt_refine_spec(run: RunSpec) -> RefineSpec:
    """How learnt seeds are refined: seeds that the head guided are in their boxes already."""
    guided = run.cams.producer == "gradcam" and run.train.guided_from is not None
    return without_boxes(run.refine) if guided else run.refine


Producer = Callable[[CamModel, Tensor, Tensor, RefineSpec | None], EmbeddedSeeds]
PRODUCERS: dict[str, Producer] = {"patch_text": _patch_text, "gradcam": _gradcam}
