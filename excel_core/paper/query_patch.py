"""Figure 6: the attention of one patch of a photo: q-k, SVC, the learnt relation, and their sum in LVC."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.seeds import learnt_activations
from excel_core.config import RefineSpec
from excel_core.errors import SettingError
from excel_core.models.calibration import relation_attention, relation_of
from excel_core.models.segmenter import Segmenter

__all__ = ["QueryMaps", "query_maps", "strongest_patch"]

Map = NDArray[np.float32]  # hw of the patch grid


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
    view = learnt_activations(cam_model, segmenter, image, refine.affinity.layers, mirror)
    path, (h, w) = view.encoded.path, view.encoded.path.grid
    if query[0] >= h or query[1] >= w:
        raise SettingError(
            f"figures.query: a photo has {h} rows and {w} columns of patches, counted from 0; got row {query[0]}, "
            f"column {query[1]}; name a patch inside, or none for the strongest"
        )
    patch = query[0] * w + query[1]
    raw = relation_of(view.features.float(), cam_model.spec.calibration, view.together).raw[:1]
    calibrated, learnt = None, None
    if cam_model.spec.calibration.attention == "svc":
        calibrated = _svc_row(cam_model, path.intra[-1].weights, patch)
        learnt = calibrated + relation_attention(raw)[0, patch]

    def shown(row: Tensor) -> Map:
        grid: Map = row.float().reshape(h, w).cpu().numpy()
        return grid

    return QueryMaps(
        query=query,
        blocks=len(path.attention),
        original=shown(path.attention[:, 0, 1 + patch, 1:].float().mean(dim=0)),
        calibrated=None if calibrated is None else shown(calibrated),
        relation=shown(raw[0, patch]),
        learnt=None if learnt is None else shown(learnt),
    )


def _svc_row(cam_model: CamModel, weights: Tensor | None, patch: int) -> Tensor:
    """weights A_svc (B, H, N, N), or (B, 1, N, N) where heads are summed or there are none → the first image's row of a patch
    over all patches (M,), as a mean over heads."""
    assert weights is not None
    row = weights[0, :, 1 + patch, 1:].float().mean(dim=0)
    return row / cam_model.clip.heads if cam_model.spec.calibration.heads == "sum" else row
