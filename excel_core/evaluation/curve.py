"""Pseudo labels and segmentation of segmenters kept during training, made as the published log makes them (method 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import refine_maps
from excel_core.config import RefineSpec
from excel_core.models.calibration import relation_of
from excel_core.models.segmenter import Segmenter

__all__ = ["CurveLabels", "labels_by_iteration"]

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class CurveLabels:
    """Label maps (H, W) of one image at one iteration: 0 background, c+1 class c."""

    pseudo_labels: Labels
    segmentation: Labels


@torch.inference_mode()
def labels_by_iteration(
    cam_model: CamModel, segmenters: Mapping[int, Segmenter], image: Image, classes: Sequence[int], refine: RefineSpec
) -> dict[int, CurveLabels]:
    """image (H, W, 3), its image-level classes, segmenters by iteration → label maps by iteration. The tower runs once.

    Pseudo labels: static CAMs, without mirror and second pass, whose affinity is refined with each segmenter's own R̂, then PAR.
    Segmentation: a single scale, no flip, no CRF.
    """
    size = image.shape[:2]
    network_input = cam_model.prepare([image])
    encoded = cam_model.encode(network_input, refine.affinity.layers)
    layers, cams = cam_model.layers(encoded), cam_model.cams(encoded).float()[0, list(classes)]
    values = np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)
    points = {}
    for iteration, segmenter in segmenters.items():
        output = segmenter(layers, encoded.activations.grid)
        relation = relation_of(output.features.float(), cam_model.spec.calibration, images_per_mean=1)
        attention = cam_model.attention(encoded.activations, refine, relation)[0]
        maps = refine_maps(image, network_input[0], cams, attention, refine)
        full = F.interpolate(output.logits.float(), size=size, mode="bilinear", align_corners=False)[0]
        pseudo = values[maps[list(maps)[-1]].argmax(dim=0).cpu().numpy()]
        points[iteration] = CurveLabels(pseudo, full.argmax(dim=0).cpu().numpy().astype(np.uint8))
    return points
