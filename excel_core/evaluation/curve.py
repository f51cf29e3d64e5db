"""Pseudo labels and segmentation of segmenters kept during training, made as the published log makes them (method 5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from excel_core.cams.affinity import kept_layers
from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import refined_labels, step_names, without_votes
from excel_core.config import RefineSpec, RunSpec
from excel_core.evaluation.metrics import confusion_of_counts, scores
from excel_core.evaluation.protocols import FULLY_SUPERVISED, refinement_words
from excel_core.models.calibration import relation_of
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.large_photos import resized_labels

__all__ = ["KINDS", "CurveLabels", "curve_protocol", "curve_refine_spec", "labels_by_iteration", "score_iterations"]

KINDS = ("pseudo_labels", "segmentation")  # of label maps

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
    size = (image.shape[0], image.shape[1])
    network_input = cam_model.prepare([image])
    encoded = cam_model.encode(network_input, kept_layers(refine.affinity))
    layers, cams = cam_model.layers(encoded), cam_model.cams(encoded).float()[0, list(classes)]
    without_crf = refine.model_copy(update={"crf": refine.crf.model_copy(update={"enabled": False})})
    points = {}
    for iteration, segmenter in segmenters.items():
        output = segmenter(layers, encoded.activations.grid)
        relation = relation_of(output.features.float(), cam_model.spec.calibration, images_per_mean=1)
        attention = cam_model.attention(encoded.activations, refine, relation)[0]
        *_, (_, pseudo) = refined_labels(image, network_input[0], classes, cams, attention, without_crf)
        points[iteration] = CurveLabels(pseudo, resized_labels(output.logits.float()[0], size))
    return points


def score_iterations(counts: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    """Pixel counts of one split, with columns iteration and kind; class names, background first → {iteration, pseudo_labels,
    segmentation} of mIoU, by iteration."""
    rows = []
    for iteration in sorted(counts["iteration"].unique().tolist()):
        row: dict[str, Any] = {"iteration": iteration}
        for kind in KINDS:
            table = counts[(counts["iteration"] == iteration) & (counts["kind"] == kind)]
            row[kind] = scores(confusion_of_counts(table, len(names)), names).miou
        rows.append(row)
    return rows


def curve_refine_spec(run: RunSpec) -> RefineSpec:
    """The run's refinement at the published log's affinity threshold, without CRF."""
    affinity = run.refine.affinity.model_copy(update={"threshold": run.curve.threshold})
    without_crf = {"affinity": affinity, "crf": run.refine.crf.model_copy(update={"enabled": False})}
    return without_votes(run.refine.model_copy(update=without_crf))


def curve_protocol(run: RunSpec, images: Mapping[str, int]) -> dict[str, Any]:
    """What the scores of a learning curve are of; `images` counts those of each split."""
    refine = curve_refine_spec(run)
    refined = refinement_words(run.model_copy(update={"refine": refine}), step_names(refine)[-1])
    relation = f"; R̂ in the affinity, threshold {run.curve.threshold}" if refine.affinity.enabled else ""
    return {
        "what": "segmenters kept during training",
        "method": run.method,
        "pseudo labels": f"static CAMs of image-level ground truth, {refined}{relation}",
        "segmentation": f"single scale {run.cams.image_size}, no flip, no CRF",
        "images": dict(images),
    } | ({"supervision": FULLY_SUPERVISED} if run.train.supervision == "masks" else {})
