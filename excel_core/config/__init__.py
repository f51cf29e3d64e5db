"""Frozen specs of every stage, with VOC's published hyper-parameters as defaults; presets.py builds runs from them.

Specs refuse unknown fields and values out of bounds. Equation numbers are the paper's.
"""

from excel_core.config.base import Spec
from excel_core.config.cams import (
    AffinitySpec,
    CalibrationSpec,
    CamSpec,
    ClipSpec,
    CrfSpec,
    DinoSpec,
    ParSpec,
    RefineSpec,
    VoteSpec,
)
from excel_core.config.data import DatasetSpec, ShardSpec
from excel_core.config.results import (
    AblationSpec,
    BenchmarkSpec,
    CurveSpec,
    DynamicSpec,
    EvaluateSpec,
    FigureSpec,
    PaperSpec,
    PredictSpec,
    QualitySpec,
    ReportSpec,
)
from excel_core.config.texts import DescribeSpec, KnowledgeSpec
from excel_core.config.training import SegmenterSpec, TrainSpec

__all__ = [
    "AblationSpec", "AffinitySpec", "BenchmarkSpec", "CalibrationSpec", "CamSpec", "ClipSpec", "CrfSpec", "CurveSpec",
    "DatasetSpec", "DescribeSpec", "DinoSpec", "DynamicSpec", "EvaluateSpec", "FigureSpec", "KnowledgeSpec", "PaperSpec",
    "ParSpec", "PredictSpec", "QualitySpec", "RefineSpec", "ReportSpec", "RunSpec", "SegmenterSpec", "ShardSpec", "Spec",
    "TrainSpec", "VoteSpec",
]  # fmt: skip


class RunSpec(Spec):
    """The whole run, one field per stage."""

    preset: str
    method: str
    dataset: DatasetSpec = DatasetSpec()
    describe: DescribeSpec = DescribeSpec()
    clip: ClipSpec = ClipSpec()
    dino: DinoSpec = DinoSpec()
    knowledge: KnowledgeSpec = KnowledgeSpec()
    cams: CamSpec = CamSpec()
    refine: RefineSpec = RefineSpec()
    train: TrainSpec = TrainSpec()
    dynamic: DynamicSpec = DynamicSpec()
    predict: PredictSpec = PredictSpec()
    curve: CurveSpec = CurveSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    ablation: AblationSpec = AblationSpec()
    paper: PaperSpec = PaperSpec()
    benchmark: BenchmarkSpec = BenchmarkSpec()
    figures: FigureSpec = FigureSpec()
    quality: QualitySpec = QualitySpec()
    report: ReportSpec = ReportSpec()
    shards: ShardSpec = ShardSpec()
