"""The arrays of the paper's figures: figure 4 CAMs as the method grows, figure 5 the response to attributes, figure 6 the
attention of one patch. Each of one photo and one class."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.seeds import learnt_activations, learnt_cams
from excel_core.config import KnowledgeSpec, RefineSpec
from excel_core.errors import SettingError
from excel_core.models.calibration import relation_attention, relation_of
from excel_core.models.segmenter import Segmenter
from excel_core.text.knowledge import Knowledge, attribute_weights, nearest_descriptions

__all__ = [
    "AttributeResponses", "CamColumns", "QueryMaps", "attribute_responses", "cam_columns", "query_maps", "strongest_patch",
]  # fmt: skip

Map = NDArray[np.float32]  # hw of the patch grid

# The dataclasses below have eq=False: comparing arrays with == has no single answer.


@dataclass(frozen=True, eq=False)
class CamColumns:
    """CAMs (h, w) float32 in [0, 1] of one class; each adds a step to those before it.

    original: CLIP's own last tokens (q-k attention) against the plain template. calibrated: the run's calibration, SVC unless
    set otherwise; None where the run has none (`qk`). enriched: against the run's T_c; None where texts are not enriched.
    learnt: LVC; None where the run's calibration is not SVC, to which LVC adds.
    """

    original: Map
    calibrated: Map | None
    enriched: Map | None
    learnt: Map | None

    @property
    def static(self) -> Map:
        """The run's own CAM without LVC."""
        return next(cam for cam in (self.enriched, self.calibrated, self.original) if cam is not None)


@torch.inference_mode()
def cam_columns(
    cam_model: CamModel, plain: Tensor, segmenter: Segmenter, image: Tensor, class_index: int, refine: RefineSpec, mirror: bool
) -> CamColumns:
    """cam_model with the run's texts; plain (C+Z, D): its unit texts without enrichment; image (1, 3, S, S) network input → the
    CAMs of one class, 0-based (methods 2, 3 and 5). `refine` and `mirror` as `learnt_cams` takes them."""
    templates, attention = plain.to(cam_model.text), cam_model.spec.calibration.attention
    uncalibrated = cam_model.spec.calibration.model_copy(update={"attention": "qk"})
    original_spec = cam_model.spec.model_copy(update={"calibration": uncalibrated})
    has_enrichment = not torch.equal(templates, cam_model.text)

    def static(variant: CamModel) -> Map:
        return _class_cam(variant.cams(variant.encode(image, with_patch_tokens=False)), class_index)

    learnt = None
    if attention == "svc":
        learnt = _class_cam(learnt_cams(cam_model, segmenter, image, refine, mirror).cams, class_index)
    return CamColumns(
        original=static(replace(cam_model, text=templates, spec=original_spec)),
        calibrated=None if attention == "qk" else static(replace(cam_model, text=templates)),
        enriched=static(cam_model) if has_enrichment else None,
        learnt=learnt,
    )


def _class_cam(cams: Tensor, class_index: int) -> Map:
    """cams (1, C, h, w) → (h, w) of a class."""
    cam: Map = cams[0, class_index].float().cpu().numpy()
    return cam


@dataclass(frozen=True, eq=False)
class AttributeResponses:
    """The K attributes of largest weight of one class on one photo, largest first; K = 0 without attributes.

    numbers (K,) int64: rows of the knowledge base's attributes. weights (K,) float32: softmax weights of eq. 4, over all kept
    attributes. maps (K, h, w) float32 in [-1, 1]: the response, which is the cosine of each patch with the attribute.
    nearest (K,) int64: row of the description nearest to the attribute by cosine.
    """

    numbers: NDArray[np.int64]
    weights: NDArray[np.float32]
    maps: NDArray[np.float32]
    nearest: NDArray[np.int64]


@torch.inference_mode()
def attribute_responses(
    cam_model: CamModel, knowledge: Knowledge, spec: KnowledgeSpec, image: Tensor, class_index: int, count: int
) -> AttributeResponses:
    """image (1, 3, S, S) network input → the responses of the `count` top attributes of a class, 0-based.

    The paper draws responses and prints no formula. Here a response is what eq. 1 is for a class: the cosine of the calibrated
    patch feature P_i (static, in the joint space; method 2) with the attribute a_j. The published normalisation over tokens and
    feature surgery, which compare classes, are left out.
    """
    encoded = cam_model.encode(image, with_patch_tokens=False)
    patches = F.normalize(cam_model.clip.project(encoded.calibrated.float())[0, 1:], dim=-1)
    top, index = _top_attributes(knowledge, spec, class_index, count)
    attributes = F.normalize(knowledge.attributes[index].to(patches), dim=-1)
    maps = (attributes @ patches.T).reshape(len(index), *encoded.activations.grid)
    nearest = nearest_descriptions(knowledge, 1)[index, 0] if len(index) else index
    return AttributeResponses(index.numpy(), top.numpy(), maps.cpu().numpy(), nearest.numpy())


def _top_attributes(knowledge: Knowledge, spec: KnowledgeSpec, class_index: int, count: int) -> tuple[Tensor, Tensor]:
    """Weights and numbers (K,) of a class's top attributes."""
    if not len(knowledge.attributes):
        return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    weights, index = attribute_weights(knowledge.templates, knowledge.attributes, spec)
    return weights[class_index, :count], index[class_index, :count]


@dataclass(frozen=True, eq=False)
class QueryMaps:
    """The attention of the patch at `query` (row, column): maps (h, w) float32 over all patches.

    original: q-k attention, mean over heads and the last `blocks` blocks; it sums to 1 with the class token, which is not
    shown. calibrated: A_svc of the last block (eq. 5), mean over heads, likewise. relation: r of eq. 8, from about -6 to 6.
    learnt: A_svc plus the row softmax of the non-negative r, mean over heads (eqs. 9, 10). calibrated and learnt are None where
    the run's calibration is not SVC.
    """

    query: tuple[int, int]
    blocks: int
    original: Map
    calibrated: Map | None
    relation: Map
    learnt: Map | None


def strongest_patch(cam: Map) -> tuple[int, int]:
    """cam (h, w) → row and column of its maximum, the first in reading order."""
    row, column = np.unravel_index(int(cam.argmax()), cam.shape)
    return int(row), int(column)


@torch.inference_mode()
def query_maps(
    cam_model: CamModel, segmenter: Segmenter, image: Tensor, query: tuple[int, int], refine: RefineSpec, mirror: bool
) -> QueryMaps:
    """image (1, 3, S, S) network input → QueryMaps of one patch. The mean over blocks is that of the affinity's
    `refine.affinity.layers`, without its scales; the relation is the one that LVC's CAMs are made with, whose mean `mirror`
    decides. SettingError for a patch outside the grid."""
    learnt_batch = learnt_activations(cam_model, segmenter, image, refine.affinity.layers, mirror)
    activations = learnt_batch.encoded.activations
    h, w = activations.grid
    if query[0] >= h or query[1] >= w:
        raise SettingError(
            f"figures.query: a photo has {h} rows and {w} columns of patches, counted from 0; got row {query[0]}, "
            f"column {query[1]}; name a patch inside, or none for the strongest"
        )
    patch = query[0] * w + query[1]  # among patches; tokens have the class token before them
    raw = relation_of(learnt_batch.features.float(), cam_model.spec.calibration, learnt_batch.views_per_image).raw[:1]
    calibrated, learnt = None, None
    if cam_model.spec.calibration.attention == "svc":
        calibrated = _svc_row(cam_model, activations.intra_correlations[-1].weights, patch)
        learnt = calibrated + relation_attention(raw)[0, patch]

    def on_grid(row: Tensor) -> Map:
        grid: Map = row.float().reshape(h, w).cpu().numpy()
        return grid

    return QueryMaps(
        query=query,
        blocks=len(activations.attention),
        original=on_grid(activations.attention[:, 0, 1 + patch, 1:].float().mean(dim=0)),
        calibrated=None if calibrated is None else on_grid(calibrated),
        relation=on_grid(raw[0, patch]),
        learnt=None if learnt is None else on_grid(learnt),
    )


def _svc_row(cam_model: CamModel, weights: Tensor | None, patch: int) -> Tensor:
    """weights A_svc (B, H, N, N), or (B, 1, N, N) where heads are summed or there are none → the first image's row of a patch
    over all patches (M,), as a mean over heads."""
    assert weights is not None
    row = weights[0, :, 1 + patch, 1:].float().mean(dim=0)
    return row / cam_model.clip.heads if cam_model.spec.calibration.heads == "sum" else row
