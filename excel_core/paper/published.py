"""What was published: mIoU in percent, from the paper's tables and the published training log (method 7)."""

from types import MappingProxyType
from typing import NamedTuple

__all__ = ["CURVE", "CurvePoint"]


class CurvePoint(NamedTuple):
    """mIoU in [0, 1] of pseudo labels and of segmentation."""

    pseudo_labels: float
    segmentation: float


# Iteration -> scores on VOC val, single scale at 320, no CRF. The log's pseudo labels are static CAMs whose affinity is refined
# with R̂, threshold 0.75, then PAR, from image-level ground truth.
CURVE = MappingProxyType(
    {
        2_000: CurvePoint(0.760, 0.428),
        6_000: CurvePoint(0.774, 0.699),
        12_000: CurvePoint(0.770, 0.675),
        16_000: CurvePoint(0.773, 0.737),
        24_000: CurvePoint(0.771, 0.747),
        30_000: CurvePoint(0.7707, 0.7561),
    }
)
