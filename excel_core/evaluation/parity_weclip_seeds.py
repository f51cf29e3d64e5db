"""Seeds, attention and refinement of WeCLIP's and WeCLIP+'s golden crops, by the functions that training calls (peers.md 8)."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from excel_core.cams.affinity import (
    affinity_cams,
    affinity_matrix,
    block_excess,
    box_masks,
    chosen_blocks,
    guided_cams,
    kept_layers,
    scale_attention,
    upsample_with_background,
    without_boxes,
)
from excel_core.cams.cam_model import CamModel
from excel_core.cams.gradcam import GradCam
from excel_core.cams.gradcam_model import encoded_gradcam, gradcam_attention, gradcam_maps
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.pseudo_labels import class_slots
from excel_core.config import RefineSpec, RunSpec
from excel_core.evaluation.parity import Arrays
from excel_core.evaluation.parity_weclip_model import Model
from excel_core.models.calibration import EncoderActivations, Relation

__all__ = ["chosen_keys", "coco_keys", "enlarged_keys", "own_classes", "seed_keys", "spread_keys"]

COCO_IMAGE = 2  # the crop that the COCO keys are about


def own_classes(slots: Tensor, golden: Arrays, n: int) -> Tensor:
    """slots (B, K, ...) → (K', ...): those of image n's K' classes."""
    return slots[n, : len(golden[f"classes_{n}"])]


def seed_keys(golden: Arrays, model: Model, cam: GradCam, n: int) -> Iterator[tuple[str, Tensor]]:
    """GradCAM of image n of a batch: (key, array) of its K' classes, as `weclip.npz` names them."""
    count, slots = len(golden[f"classes_{n}"]), cam.seeds.shape[1]
    yield f"probabilities_{n}", torch.cat([cam.probabilities[n, :count], cam.probabilities[n, slots:]])
    yield f"gradcam_weights_{n}", own_classes(cam.weights, golden, n)
    yield f"gradcam_raw_{n}", own_classes(cam.raw, golden, n)
    yield f"gradcam_{n}", own_classes(cam.seeds, golden, n)
    if model.run.refine.affinity.boxes:
        yield f"box_mask_{n}", box_masks(own_classes(cam.seeds, golden, n), model.run.refine.affinity.threshold).byte()


def spread_keys(cams: Tensor, attention: Tensor, refine: RefineSpec) -> Iterator[tuple[str, Tensor]]:
    """CAMs (K, h, w), attention (M, M) → the steps on the grid of patches."""
    yield "attention_used", attention
    yield "affinity", affinity_matrix(attention, refine.affinity)
    yield "refined", affinity_cams(cams, attention, refine.affinity)


def enlarged_keys(cams: Tensor, attention: Tensor, colours: Tensor, refine: RefineSpec) -> Iterator[tuple[str, Tensor]]:
    """CAMs (K, h, w), attention (M, M), network input (3, S, S) → the steps at the crop's size."""
    refined, size = affinity_cams(cams, attention, refine.affinity), (colours.shape[-2], colours.shape[-1])
    maps = upsample_with_background(refined, size, refine.background_power, epsilon=refine.affinity.epsilon)
    yield "cams_with_background", maps
    yield "par", pixel_adaptive_refinement(colours[None], maps[None], refine.par)[0]


def chosen_keys(
    model: Model, activations: EncoderActivations, cam: GradCam, relation: Relation, n: int, name: str
) -> Iterator[tuple[str, Tensor]]:
    """By how much R exceeds each block's attention (A,), and which of them (A,) image n keeps; `name` has a place for the
    key."""
    affinity = model.run.refine.affinity
    maps = gradcam_maps(model.cam_model, activations, cam)
    scaled = scale_attention(maps, model.cam_model.clip.heads, model.run.cams.calibration, affinity)
    excess = block_excess(scaled[-(affinity.dynamic_layers or affinity.layers) :], relation.probability)
    yield name.format("excess"), excess[:, n]
    yield name.format("blocks_kept"), chosen_blocks(excess)[:, n].byte()


@torch.no_grad()
def coco_keys(golden: Arrays, model: Model, network_input: Tensor, coco: RunSpec) -> Iterator[tuple[str, Tensor]]:
    """The crop COCO_IMAGE of the network input (B, 3, S, S) under COCO's texts and settings, the golden relation, and, where it
    guides, the golden probabilities of the head."""
    text, classes = torch.from_numpy(golden["coco_text"]), golden["coco_classes"].tolist()
    background = len(golden["coco_probabilities"]) - len(classes)
    cam_model = CamModel(model.cam_model.clip, text, len(text) - background, coco.cams)
    coco_image = slice(COCO_IMAGE, COCO_IMAGE + 1)
    encoded = cam_model.encode(network_input[coco_image], kept_layers(coco.refine.affinity), last_block=False)
    cam = encoded_gradcam(cam_model, encoded, class_slots([classes]))
    golden_relation = torch.from_numpy(golden["relation"])[coco_image]
    relation = Relation(golden_relation, golden_relation)
    yield "coco_probabilities", cam.probabilities[0]
    yield "coco_gradcam_raw", cam.raw[0]
    yield "coco_gradcam", cam.seeds[0]
    cams, refine, guided = cam.seeds[0], coco.refine, coco.train.guided_from is not None
    yield "coco_column_mask" if guided else "coco_box_mask", box_masks(cams, refine.affinity.threshold).byte()
    if guided:
        guidance = torch.from_numpy(golden["coco_probabilities_of_head"])[[c + 1 for c in classes]]
        yield "coco_guided_cam", cams * guidance
        cams, refine = guided_cams(cams, guidance, refine.affinity), without_boxes(refine)
    attention = gradcam_attention(cam_model, encoded.activations, cam, refine, relation)[0]
    for key, value in spread_keys(cams, attention, refine):
        yield f"coco_{key}", value
    coco_model = replace(model, run=coco, cam_model=cam_model)
    yield from chosen_keys(coco_model, encoded.activations, cam, relation, 0, "coco_{}")
