"""What the report is made from: plain frozen records that a task fills from finished stages.

Label maps are (H, W) uint8 of the image's size: 0 background, c+1 class c of `class_names`, 255 ignore.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Cam", "GalleryItem", "Labels", "Pixels", "ReportView", "SegmentedItem", "StageRow"]

Pixels = NDArray[np.uint8]  # HWC RGB in [0, 255]
Labels = NDArray[np.uint8]  # HW
Cam = NDArray[np.floating[Any]]  # hw of the patch grid, in [0, 1]


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays with == has no single answer
class GalleryItem:
    """One image of the train split on its way from CAMs to pseudo labels."""

    id: str
    labels: tuple[str, ...]  # image-level classes
    image: Pixels
    cams: dict[str, Cam]  # by class name, static
    steps: dict[str, Labels]  # raw, affinity, par, crf as far as enabled, from the static CAMs
    lvc_steps: dict[str, Labels] = field(default_factory=dict)  # the same from the CAMs with LVC
    truth: Labels | None = None


@dataclass(frozen=True, eq=False)
class SegmentedItem:
    """One image of a validation split as the trained segmenter sees it."""

    id: str
    image: Pixels
    prediction: Labels
    truth: Labels | None = None


@dataclass(frozen=True)
class StageRow:
    """One stage's output: its identity (hex digits), seconds it took, what it says of itself, bytes on disk."""

    stage: str
    identity: str
    seconds: float
    summary: dict[str, Any]
    bytes: int


@dataclass(frozen=True, eq=False)
class ReportView:
    """Everything that the report and the Prefect artifacts show of one run."""

    title: str
    preset: str
    method: str
    clip: str
    metrics: dict[str, Any]  # the content of metrics.json (excel-metrics/1)
    stages: tuple[StageRow, ...]
    gallery: tuple[GalleryItem, ...]
    segmented: tuple[SegmentedItem, ...]
    losses: pd.DataFrame | None  # see charts.draw_losses
    attributes: tuple[tuple[str, ...], ...]  # each attribute's nearest descriptions, nearest first
    spec: dict[str, Any]
    class_names: tuple[str, ...]  # (C), without background
