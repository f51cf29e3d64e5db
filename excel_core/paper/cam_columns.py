"""Figure 4: one class's CAM on one photo as the method's steps are added: q-k attention, SVC, TSE, LVC."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.seeds import learnt_cams
from excel_core.config import RefineSpec
from excel_core.models.segmenter import Segmenter

__all__ = ["CamColumns", "cam_columns"]

Map = NDArray[np.float32]  # hw of the patch grid


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays with == has no single answer
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
    """vision: the run's, with its texts; plain (C+Z, D): its unit texts without enrichment; image (1, 3, S, S) network input →
    the CAMs of one class, 0-based (methods 2, 3 and 5). `refine` and `mirror` as `learnt_cams` takes them."""
    spec, templates = cam_model.spec, plain.to(cam_model.text)
    attention = spec.calibration.attention
    original = spec.model_copy(update={"calibration": spec.calibration.model_copy(update={"attention": "qk"})})
    has_enrichment = not torch.equal(templates, cam_model.text)

    def static(variant: CamModel) -> Map:
        return _one(variant.cams(variant.encode(image, whole=False)), class_index)

    learnt = None
    if attention == "svc":
        learnt = _one(learnt_cams(cam_model, segmenter, image, refine, mirror).cams, class_index)
    return CamColumns(
        original=static(replace(cam_model, text=templates, spec=original)),
        calibrated=None if attention == "qk" else static(replace(cam_model, text=templates)),
        enriched=static(cam_model) if has_enrichment else None,
        learnt=learnt,
    )


def _one(cams: Tensor, class_index: int) -> Map:
    """cams (1, C, h, w) → (h, w) of a class."""
    chosen: Map = cams[0, class_index].float().cpu().numpy()
    return chosen
