"""Untrained segmenters over real towers: what leaves the store must be what went in, trained or not."""

import torch
import torch.nn.functional as F

from excel_core.cams.cam_model import CamModel
from excel_core.config import CalibrationSpec, CamSpec, CrfSpec, PredictSpec, SegmenterSpec
from excel_core.models.clip_weights import load_clip
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.trained_segmenter import TrainedSegmenter

CLASSES = ("dog", "potted plant", "Straßenbahn")


def toy_segmenter(clip=None, layers="published", size=64) -> TrainedSegmenter:
    """A seeded segmenter of CLASSES over `clip` (default excel-tiny) at side `size`."""
    clip = clip or load_clip("excel-tiny")
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(5, clip.joint_width, generator=generator), dim=1)
    spec = CamSpec(image_size=size, normalisation="clip", calibration=CalibrationSpec(layers=layers, depth=3))
    torch.manual_seed(0)
    own = SegmenterSpec(width=16, layers=1, heads=2)
    segmenter = Segmenter(len(clip.blocks), clip.width, len(CLASSES), own).eval()
    predict = PredictSpec(scales=(0.5, 1.0), image_size=size)
    return TrainedSegmenter(CLASSES, CamModel(clip, text, len(CLASSES), spec), segmenter, own, predict, CrfSpec(iterations=3))
