"""GradCAM of a CAM model's images, and the attention that refines it. Apart from cam_model.py, so that runs without GradCAM do
not depend on its code."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from excel_core.cams.affinity import guided_cams, kept_layers
from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.cams.gradcam import GradCam, gradcam_seeds
from excel_core.cams.pseudo_labels import cams_of_slots
from excel_core.cams.seeds import CamBatch
from excel_core.config import RefineSpec
from excel_core.models.calibration import EncoderActivations, Relation, relation_of
from excel_core.models.segmenter import Segmenter

__all__ = ["GradCamPass", "encoded_gradcam", "gradcam_attention", "gradcam_maps", "gradcam_pass", "learnt_gradcam"]


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
    cam = encoded_gradcam(cam_model, encoded, class_of_slot)
    return GradCamPass(encoded.activations, cam, gradcam_maps(cam_model, encoded.activations, cam))


def encoded_gradcam(cam_model: CamModel, encoded: Encoded, class_of_slot: Tensor) -> GradCam:
    """GradCAM seeds of the `class_slots` (B, K) of images, through the last block (peers.md 1.3)."""
    clip = cam_model.clip
    tokens = encoded.activations.outputs[len(clip.blocks) - 2 - cam_model.spec.gradcam_skips]
    return gradcam_seeds(clip, tokens, encoded.activations.grid, cam_model.text, cam_model.classes, class_of_slot)


def gradcam_maps(cam_model: CamModel, activations: EncoderActivations, cam: GradCam) -> Tensor:
    """Attention (A, B, N, N) of the last blocks, that of the last one as GradCAM ran it."""
    ran_last = len(activations.outputs) == len(cam_model.clip.blocks)
    earlier = activations.attention[:-1] if ran_last else activations.attention
    return torch.cat([earlier, cam.attention[None].to(earlier.dtype)])


def gradcam_attention(
    cam_model: CamModel,
    activations: EncoderActivations,
    cam: GradCam,
    spec: RefineSpec,
    relation: Relation | None = None,
) -> Tensor:
    """`CamModel.attention` over `gradcam_maps`."""
    maps = gradcam_maps(cam_model, activations, cam)
    return cam_model.attention(replace(activations, attention=maps), spec, relation)


def learnt_gradcam(
    cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, class_of_slot: Tensor, refine: RefineSpec, guided: bool
) -> CamBatch:
    """network input (B, 3, H, W), `class_slots` (B, K) → CamBatch of the slots' GradCAM seeds (B, K, h, w) and of the attention
    that the learnt relation chooses (peers.md 3.3, 3.8). With `guided` (WeCLIP+, 4.3) seeds are `guided_cams`."""
    encoded = cam_model.encode(network_input, kept_layers(refine.affinity), last_block=segmenter.reads_last_block)
    output = segmenter(*cam_model.segmenter_input(encoded))
    cam = encoded_gradcam(cam_model, encoded, class_of_slot)
    relation = relation_of(output.features.float(), cam_model.spec.calibration, images_per_mean=1)
    attention = gradcam_attention(cam_model, encoded.activations, cam, refine, relation)
    cams = cam.seeds.float()
    if guided:
        probability = torch.softmax(output.logits.float(), dim=1)[:, 1:]
        cams = guided_cams(cams, cams_of_slots(probability, class_of_slot), refine.affinity)
    return CamBatch(network_input, cams, attention, encoded.activations)
