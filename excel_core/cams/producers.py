"""What makes CAMs, by `cams.producer`: patches compared with texts (ExCEL, MaskCLIP), or GradCAM (CLIP-ES).

A producer takes network input and the classes of each image, and gives CAMs of these classes alone, and the attention that
refines them: from photos (`seed_cams`), under a trained segmenter (`learnt_seeds`), and in training (`encoded_seeds`). Whoever
adds a producer writes one function of each form and names them here; a stage's key holds the code of the run's own alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from excel_core.cams.affinity import mean_attention, scale_attention, without_boxes
from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.cams.gradcam_model import encoded_gradcam, gradcam_attention, gradcam_pass, learnt_gradcam
from excel_core.cams.presence import image_embedding
from excel_core.cams.pseudo_labels import cams_of_slots
from excel_core.cams.seeds import learnt_cams, static_cams
from excel_core.config import RefineSpec, RunSpec
from excel_core.models.calibration import Relation
from excel_core.models.segmenter import Segmenter

__all__ = [
    "EmbeddedSeeds", "SeedCams", "SeedsOfRelation", "encoded_seeds", "learnt_refine_spec", "learnt_seeds",
    "seed_cams",
]  # fmt: skip


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
    layers = 0 if refine is None else refine.affinity.layers  # nothing is learnt yet
    passed = gradcam_pass(cam_model, network_input, class_of_slot, layers)
    gradcam, attention = passed.gradcam, None
    if refine is not None:
        scaled = scale_attention(passed.attention, cam_model.clip.heads, cam_model.spec.calibration, refine.affinity)
        attention = mean_attention(scaled, refine.affinity)
    return EmbeddedSeeds(gradcam.seeds, attention, gradcam.embedding)


def learnt_seeds(
    cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, class_of_slot: Tensor, run: RunSpec
) -> SeedCams:
    """As `seed_cams`, with the trained segmenter's relation; to be refined as `learnt_refine_spec` says."""
    return LEARNT[cam_model.spec.producer](cam_model, segmenter, network_input, class_of_slot, run)


def _learnt_patch_text(
    cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, class_of_slot: Tensor, run: RunSpec
) -> SeedCams:
    seeds = learnt_cams(cam_model, segmenter, network_input, run.refine, run.dynamic.mirror)
    return SeedCams(cams_of_slots(seeds.cams, class_of_slot), seeds.attention)


def _learnt_gradcam(
    cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, class_of_slot: Tensor, run: RunSpec
) -> SeedCams:
    guided = run.train.guided_from is not None
    seeds = learnt_gradcam(cam_model, segmenter, network_input, class_of_slot, run.refine, guided)
    return SeedCams(seeds.cams, seeds.attention)


def learnt_refine_spec(run: RunSpec) -> RefineSpec:
    """How learnt seeds are refined: seeds that the head guided are in their boxes already."""
    guided = run.cams.producer == "gradcam" and run.train.guided_from is not None
    return without_boxes(run.refine) if guided else run.refine


SeedsOfRelation = Callable[[Relation | None], tuple[Tensor, Tensor]]


def encoded_seeds(cam_model: CamModel, encoded: Encoded, class_of_slot: Tensor, refine: RefineSpec) -> SeedsOfRelation:
    """Training's seeds of a batch that is encoded already, and its `class_slots` (B, K) → what makes CAMs (B, K, h, w) of the
    slots and attention (B, M, M) of a relation, or static ones of None; what both share is computed once."""
    return ENCODED[cam_model.spec.producer](cam_model, encoded, class_of_slot, refine)


def _encoded_patch_text(cam_model: CamModel, encoded: Encoded, class_of_slot: Tensor, refine: RefineSpec) -> SeedsOfRelation:
    def seeds(relation: Relation | None) -> tuple[Tensor, Tensor]:
        cams = cams_of_slots(cam_model.cams(encoded, relation), class_of_slot)
        return cams, cam_model.attention(encoded.activations, refine, relation)

    return seeds


def _encoded_gradcam(cam_model: CamModel, encoded: Encoded, class_of_slot: Tensor, refine: RefineSpec) -> SeedsOfRelation:
    cam = encoded_gradcam(cam_model, encoded, class_of_slot)

    def seeds(relation: Relation | None) -> tuple[Tensor, Tensor]:
        return cam.seeds, gradcam_attention(cam_model, encoded.activations, cam, refine, relation)

    return seeds


# Three tables, so that what has no segmenter does not depend on its code.
PRODUCERS: dict[str, Callable[[CamModel, Tensor, Tensor, RefineSpec | None], EmbeddedSeeds]] = {
    "patch_text": _patch_text,
    "gradcam": _gradcam,
}
LEARNT: dict[str, Callable[[CamModel, Segmenter, Tensor, Tensor, RunSpec], SeedCams]] = {
    "patch_text": _learnt_patch_text,
    "gradcam": _learnt_gradcam,
}
ENCODED: dict[str, Callable[[CamModel, Encoded, Tensor, RefineSpec], SeedsOfRelation]] = {
    "patch_text": _encoded_patch_text,
    "gradcam": _encoded_gradcam,
}
