"""Published figures: mIoU in [0, 1], from the paper's tables and the published training log."""

from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "ATTRIBUTES",
    "CALIBRATION",
    "COMPONENTS",
    "COSTS",
    "CURVE",
    "IMAGES",
    "PEER_SEEDS",
    "SEEDS",
    "SEGMENTATION",
    "CurvePoint",
]

IMAGES = MappingProxyType({"voc": 10_582, "coco": 82_081})  # training images of each data set

# Table 1: (data set, split) -> segmentation without and with CRF, four scales.
SEGMENTATION = MappingProxyType(
    {("voc", "val"): (0.772, 0.784), ("voc", "test"): (0.773, 0.785), ("coco", "val"): (0.493, 0.503)}
)
# Table 2: CAM seeds on VOC train after affinity and PAR.
SEEDS = MappingProxyType({"static": 0.746, "lvc": 0.780})
# (method, step of its refinement) -> seeds on VOC train, as the methods' own READMEs print them.
PEER_SEEDS = MappingProxyType({("clip_es", "affinity"): 0.708, ("clip_es", "crf"): 0.750})
# Table 3: segmentation on VOC val without CRF, a training a row.
COMPONENTS = MappingProxyType(
    {"baseline": 0.121, "SVC": 0.725, "SVC + TSE": 0.747, "SVC + LVC": 0.751, "SVC + TSE + LVC": 0.772}
)
# Table 4: number of attributes -> segmentation on VOC val without CRF; 0 is the paper's None.
ATTRIBUTES = MappingProxyType({0: 0.751, 32: 0.758, 64: 0.762, 112: 0.772, 144: 0.770, 196: 0.765})
# Table 5: static seeds on VOC train after affinity and PAR, all with text enrichment.
CALIBRATION = MappingProxyType({"q-k": 0.112, "value only": 0.658, "last block": 0.697, "SVC": 0.746})
# Table 7, on one RTX 3090: (data set, what) -> time and GPU memory, as far as they were published.
COSTS = MappingProxyType(
    {
        ("voc", "training-free"): "2.9 GB GPU",
        ("voc", "training"): "90 min; 3.2 GB GPU",
        ("coco", "training"): "9 h 29 min",
    }
)


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
