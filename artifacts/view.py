"""What a report shows: frozen records that the stage `report` fills from the outputs of the other stages.

Label maps are (H, W) uint8 of the image's size: 0 background, c+1 class c of `class_names`, 255 ignore.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # they take time to import, and drawing a photo's masks needs neither
    import pandas as pd

    from excel_core.evaluation.examples import ImageScore

__all__ = [
    "AttributeRow", "Benchmark", "Cam", "ComparedItem", "Comparison", "Counts", "Curve", "DoubtRow", "ExploredArrays",
    "ExploredImage", "ExploredRun", "GalleryItem", "KnowledgeMap", "Labels", "Metrics", "Pixels", "QualityRow", "ReportView",
    "SegmentedItem", "StageRow",
]  # fmt: skip

Pixels = NDArray[np.uint8]  # HWC RGB in [0, 255]
Labels = NDArray[np.uint8]  # HW
Cam = NDArray[np.floating[Any]]  # hw of the patch grid, in [0, 1]
Counts = NDArray[np.int64]  # (C+1, C+1) pixels, rows truth, columns prediction, background first
Metrics = Mapping[str, Any]  # the content of metrics.json (excel-metrics/1), or a part of it
Curve = Mapping[str, Any]  # the content of curve.json (excel-curve/1)
Benchmark = Mapping[str, Any]  # the content of benchmark.json (excel-benchmark/1)
Comparison = Mapping[str, Any]  # two runs side by side, as tasks/history/compare.py makes it


@dataclass(frozen=True, eq=False)  # eq=False: comparing arrays with == has no single answer
class GalleryItem:
    """One image of a seed split on its way from CAMs to pseudo labels."""

    id: str
    labels: tuple[str, ...]  # image-level classes
    image: Pixels
    cams: dict[str, Cam]  # by class name, static
    steps: dict[str, Labels]  # raw, affinity, par, crf as far as enabled, from the static CAMs
    lvc_steps: dict[str, Labels] = field(default_factory=dict)  # the same from the CAMs with LVC
    truth: Labels | None = None
    rank: str = ""  # why it is shown: "best of 240, IoU 0.91"; "" where nothing was scored


@dataclass(frozen=True, eq=False)
class SegmentedItem:
    """One image of a validation split with the trained segmenter's prediction."""

    id: str
    image: Pixels
    prediction: Labels
    truth: Labels | None = None
    rank: str = ""  # as in GalleryItem


@dataclass(frozen=True, eq=False)
class ExploredArrays:
    """What the explorer draws of one image: the photo, its label maps by kind, the truth's copy, and static CAMs by 0-based
    class."""

    image: Pixels
    maps: dict[str, Labels]
    truth: Labels | None
    cams: dict[int, Cam]


@dataclass(frozen=True, eq=False)
class ExploredImage:
    """One image of the explorer. `scores`: by kind of label map (`static.crf`, `segmentation.multi_scale`), in the order in
    which they are made; None where nothing was scored. `load` reads the arrays, so that one image's are in memory at a time."""

    id: str
    split: str
    classes: tuple[int, ...]  # image-level, 0-based
    scores: "dict[str, ImageScore | None]"
    load: Callable[[], ExploredArrays]


@dataclass(frozen=True, eq=False)
class ExploredRun:
    """What the explorer shows of a run. `name`: what titles and numbers call it beside another run, such as "A"; "" of a run
    alone. `background_power` as in ReportView. `photos`: whether its data hold the photos; the run beside it may."""

    title: str
    class_names: tuple[str, ...]  # (C), without background
    images: tuple[ExploredImage, ...]
    background_power: float = 1.0
    name: str = ""
    photos: bool = True


@dataclass(frozen=True, eq=False)
class ComparedItem:
    """One image with what each method makes of it: by method, label maps under their captions; none where it makes none."""

    id: str
    image: Pixels
    truth: Labels | None
    methods: dict[str, dict[str, Labels]]
    miou: dict[str, float]  # of this image, by method
    remark: str  # why it is shown


@dataclass(frozen=True)
class StageRow:
    """One stage's output: its identity (hex digits), what building it took, its summary, bytes on disk, and where it comes
    from."""

    stage: str
    identity: str
    seconds: float
    summary: dict[str, Any]
    bytes: int
    folder: str = ""  # absolute
    inputs: dict[str, str] = field(default_factory=dict)  # input stage -> its identity
    code: str = ""  # version of the code (hex digits)
    finished: str = ""  # ISO 8601, UTC
    parts: int = 0  # shards or classes that it was built from; 0: built in one piece
    made_by: str = ""  # name of the flow run that built it
    made_by_id: str = ""  # its Prefect id; "" outside Prefect
    cached: bool = False  # in this run it was found complete
    peak_host_bytes: int | None = None  # None: not measured
    peak_gpu_bytes: int | None = None  # None: no GPU, or not measured


@dataclass(frozen=True)
class AttributeRow:
    """One attribute of the knowledge base: a k-means cluster of descriptions, a class's mean, or a centroid of a file."""

    number: int  # from 0
    descriptions: tuple[str, ...]  # nearest to its centre, nearest first
    classes: tuple[tuple[str, float], ...]  # (class, its softmax weight in eq. 4), largest first


@dataclass(frozen=True)
class QualityRow:
    """A pseudo label: its score without a truth, in [0, 1], and how well each pair of steps agrees."""

    image: str
    score: float
    agreements: dict[str, float]  # `raw-crf`, … `static-lvc`


@dataclass(frozen=True)
class DoubtRow:
    """An image-level label that CLIP doubts, `given` or `missing`; `rank` as in excel_core/evaluation/label_doubts.py."""

    image: str
    name: str
    label: str
    rank: float


@dataclass(frozen=True, eq=False)
class KnowledgeMap:
    """Two principal components of the texts, float (…, 2): where descriptions, attributes and enriched classes lie."""

    descriptions: NDArray[np.floating[Any]]  # (n*C, 2), class by class
    description_class: NDArray[np.integer[Any]]  # (n*C,) 0-based
    attributes: NDArray[np.floating[Any]]  # (A, 2)
    classes: NDArray[np.floating[Any]]  # (C, 2), T_c
    explained: tuple[float, float]  # share of the descriptions' variance on each axis, in [0, 1]


@dataclass(frozen=True, eq=False)
class ReportView:
    """Everything that the report and the Prefect artifacts show of one run."""

    title: str
    preset: str
    method: str
    clip: str
    metrics: Metrics
    stages: tuple[StageRow, ...]
    gallery: tuple[GalleryItem, ...]
    segmented: tuple[SegmentedItem, ...]
    losses: "pd.DataFrame | None"  # see charts.losses_png; without a row where nothing was trained
    attributes: tuple[AttributeRow, ...]
    spec: dict[str, Any]
    class_names: tuple[str, ...]  # (C), without background
    confusion: dict[str, Counts] = field(default_factory=dict)  # by result key
    knowledge_map: KnowledgeMap | None = None
    curve: Curve = field(default_factory=dict)  # {} where none was made
    attributes_are: str = "clusters of descriptions"  # what the attributes are, in words
    quality: tuple[QualityRow, ...] = ()  # of the pseudo labels, the least trusted first
    doubts: tuple[DoubtRow, ...] = ()
    quality_note: str = ""  # how many images and labels the two are taken from; "" where nothing was ranked
    explored: tuple[ExploredImage, ...] = ()
    explored_note: str = ""  # how many of each split's images are shown
    background_power: float = 1.0  # of the step `raw`: background is (1 - max CAM)^power
    left_out: tuple[str, ...] = ()  # what of the data folder was not used, and why, a line a reason
    given_segmenter: str = ""  # where the segmenter comes from, if it was not trained here
