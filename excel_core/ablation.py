"""The ablation of calibration and text: CAMs of each variant on the same images, scored at each one's best threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.calibration import OriginalPath, Relation, calibrated_features
from excel_core.cams import patch_text_cams
from excel_core.clip import FrozenClip
from excel_core.config import CamSpec
from excel_core.losses import IGNORE

__all__ = ["ThresholdSweep", "Variant", "presence_scores", "variant_cams", "variants"]

BINS = 100  # thresholds 0.00, 0.01, … 0.99


@dataclass(frozen=True)
class Variant:
    """A row of the ablation: a CAM spec, with enriched or plain class texts, with or without the learnt relation."""

    name: str
    spec: CamSpec
    enriched: bool = False
    learnt: bool = False


def variants(spec: CamSpec) -> list[Variant]:
    """The rows of the paper's tables 3 and 4, weakest first; the LVC row needs a trained neck's relation."""

    def calibrated(**fields: object) -> CamSpec:
        return spec.model_copy(update={"calibration": spec.calibration.model_copy(update=fields)})

    return [
        Variant("q-k baseline", calibrated(attention="qk")),
        Variant("value only, last block", calibrated(attention="v", depth=1)),
        Variant("intra-correlation, last block", calibrated(attention="svc", depth=1)),
        Variant("SVC", calibrated(attention="svc")),
        Variant("SVC + TSE", calibrated(attention="svc"), enriched=True),
        Variant("SVC + TSE + LVC", calibrated(attention="svc"), enriched=True, learnt=True),
    ]


def variant_cams(
    clip: FrozenClip,
    path: OriginalPath,
    texts: dict[bool, Tensor],
    classes: int,
    rows: Sequence[Variant],
    relation: Relation,
) -> dict[str, Tensor]:
    """path of B images, texts[enriched] (C+Z, D), their learnt relation → CAMs (B, C, h, w) by variant."""
    result = {}
    for row in rows:
        tokens = calibrated_features(clip, path, row.spec.calibration, relation if row.learnt else None)
        cams = patch_text_cams(clip.project(tokens), texts[row.enriched], classes, row.spec)
        result[row.name] = cams.reshape(*cams.shape[:2], *path.grid)
    return result


class ThresholdSweep:
    """mIoU of one variant at every threshold: a pixel is its strongest image-level class where that CAM exceeds it."""

    def __init__(self, classes: int) -> None:
        # Pixels by true label (background first), strongest class, and its CAM value in BINS steps.
        self.counts: NDArray[np.int64] = np.zeros((classes + 1, classes, BINS), dtype=np.int64)

    def add(self, cams: Tensor, classes: Sequence[int], truth: NDArray[np.uint8]) -> None:
        """One image: cams (C, h, w) in [0, 1], its class indices, truth (H, W) with 255 ignored."""
        kept = cams[list(classes)]
        full = F.interpolate(kept[None], size=truth.shape, mode="bilinear", align_corners=False)[0]
        value, slot = (part.cpu().numpy() for part in full.max(dim=0))
        strongest = np.asarray(classes)[slot]
        level = np.clip((value * BINS).astype(np.int64), 0, BINS - 1)
        counted = truth != IGNORE
        index = np.ravel_multi_index((truth[counted], strongest[counted], level[counted]), self.counts.shape)
        self.counts += np.bincount(index, minlength=self.counts.size).reshape(self.counts.shape)

    def best(self) -> tuple[float, float]:
        """(mIoU, threshold) of the best single threshold; classes absent from the truth are left out of the mean."""
        scores = [self._miou(level) for level in range(BINS)]
        best = int(np.argmax(scores))
        return scores[best], best / BINS

    def _miou(self, level: int) -> float:
        foreground = self.counts[:, :, level:].sum(axis=2)
        background = self.counts[:, :, :level].sum(axis=(1, 2))
        confusion = np.concatenate([background[:, None], foreground], axis=1)
        hit, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
        union = true + predicted - hit
        return float(np.mean((hit / np.maximum(union, 1))[true > 0]))


def presence_scores(clip: FrozenClip, path: OriginalPath, templates: Tensor) -> Tensor:
    """path of B images, templates t_c (C, D) unit → cosine of each image's class token with each template (B, C)."""
    image = F.normalize(clip.project(path.outputs[-1])[:, 0], dim=-1)
    return image @ templates.T
