"""A small ReportView that has everything a report can show, with hostile names, for the tests that look at it."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import csr_matrix

from artifacts.view import (
    AttributeRow,
    ExploredArrays,
    ExploredImage,
    GalleryItem,
    KnowledgeMap,
    ReportView,
    SegmentedItem,
    StageRow,
)
from excel_core.evaluation.examples import ImageScore, image_scores
from excel_core.evaluation.metrics import confusion_matrix, scores

__all__ = [
    "CONFUSION",
    "FLOW_RUN",
    "HOSTILE",
    "NAMES",
    "decoded",
    "example_view",
    "explored_image",
    "gallery_item",
    "labels",
    "losses",
    "metrics",
]

HOSTILE = '<script>alert("x")</script>'
NAMES = ("car|van", HOSTILE, "kite")
CONFUSION = np.array([[80, 5, 5, 0], [10, 20, 0, 0], [9, 0, 31, 0], [0, 0, 0, 0]])
FLOW_RUN = "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b"


def example_view() -> ReportView:
    """Three classes, two gallery images with truth, ranks and every step, two segmented ones, one without truth."""
    return ReportView(
        title=f"Run of {HOSTILE}",
        preset="De_mo",
        method="reference",
        clip="excel-tiny",
        metrics=metrics(),
        stages=(_stage(),),
        gallery=(gallery_item("one", rank="best of 7, IoU 0.91"), gallery_item(HOSTILE, rank=f"worst of {HOSTILE}")),
        segmented=(
            SegmentedItem("val|1", gallery_item("x").image, labels(), labels(), rank="median of 7, IoU 0.50"),
            SegmentedItem("no truth", gallery_item("x").image, labels()),
        ),
        losses=losses(),
        attributes=(
            AttributeRow(0, ("a red roof", HOSTILE), (("kite", 0.75), (HOSTILE, 0.125))),
            AttributeRow(1, ("a sail",), ()),
        ),
        spec={"train": {"note": HOSTILE}, "folder": Path("runs")},
        class_names=NAMES,
        confusion={"segmentation.val.multi_scale_crf": CONFUSION, "seeds.static.train.raw": CONFUSION},
        knowledge_map=_knowledge_map(),
        explored=tuple(explored_image(name, shift) for name, shift in (("one", 2), ("two", 20), (HOSTILE, 0))),
        explored_note="train: all 3 images",
    )


def explored_image(name: str, shift: int, split: str = "train", scored: bool = True) -> ExploredImage:
    """A gallery item whose label maps are the truth moved by `shift` pixels, `crf` by one more; CAMs of two classes."""
    item = gallery_item(name)
    truth = labels()
    maps = {kind: np.where((moved := np.roll(truth, by, axis=1)) == 255, 0, moved) for kind, by in _shifts(shift).items()}
    maps = {kind: values.astype(np.uint8) for kind, values in maps.items()}
    cams = dict(enumerate(np.random.default_rng(7).random((2, 4, 4))))
    scores_by_kind = {kind: _score(truth, values) if scored else None for kind, values in maps.items()}
    arrays = ExploredArrays(item.image, maps, truth if scored else None, cams)
    return ExploredImage(name, split, (0, 1), scores_by_kind, lambda: arrays)


def _shifts(shift: int) -> dict[str, int]:
    return {"static.raw": shift, "static.crf": shift + 1}


def _score(truth: np.ndarray, prediction: np.ndarray) -> ImageScore:
    confusion = confusion_matrix(truth, prediction, len(NAMES) + 1)
    return next(image_scores(csr_matrix(confusion.reshape(1, -1)), len(NAMES) + 1))


def metrics() -> dict[str, Any]:
    """The content of a metrics.json with four results in two families and an ablation of three groups."""
    truth = "image-level ground truth"
    flips = "0.7,1.0,1.2,1.5 + flip"
    whole = {"std": 0.0104, "low": 0.411, "high": 0.449, "seeds": 3, "by_split": {"val": 0.432}, "threshold": {"val": 0.5}}
    rows = [
        {"group": "calibration", "name": "SVC + $TSE$", "miou": 0.432} | whole,
        {"group": "calibration", "name": "q-k", "miou": 0.1} | whole | {"std": None, "seeds": 1},
        {"group": "attributes", "name": HOSTILE, "miou": 0.4} | whole,
    ]
    return {
        "format": "excel-metrics/1",
        "preset": "demo",
        "method": "reference",
        "clip": "excel-tiny",
        "results": {
            "seeds.static.train.raw": _result("CAM seed", "train", truth, "raw", "single"),
            "seeds.static.train.par": _result("CAM seed", "train", truth, "affinity+PAR", "single"),
            "segmentation.val.single_scale": _result("segmentation", "val", "none", "none", "single"),
            "segmentation.val.multi_scale_crf": _result("segmentation", "val", "none", "CRF", flips)
            | {"miou_interval": [0.61, 0.7]},
        },
        "ablation": {
            "protocol": {"what": "CAMs, not refined", "splits": ["val"], "labels": truth, "images": {"val": 7}},
            "rows": rows,
            "presence_map": {"mean": 0.95, "by_split": {"val": 0.95}},
        },
        "skipped": {HOSTILE: "no masks in SegmentationClass"},
        "warnings": {f"val: 1 of 7 images ({HOSTILE})": "have an EXIF orientation"},
    }


def labels(height: int = 40, width: int = 60) -> np.ndarray:
    """(H, W) uint8: two classes that overlap, and ignored pixels below them."""
    values = np.zeros((height, width), dtype=np.uint8)
    values[5:25, 5:30], values[10:35, 30:55], values[36:, :] = 1, 2, 255
    return values


def gallery_item(name: str, side: tuple[int, int] = (40, 60), rank: str = "") -> GalleryItem:
    """Noise with labels; each refinement step is another picture."""
    image = np.random.default_rng(0).integers(0, 256, (*side, 3), dtype=np.uint8)
    cams = {NAMES[0]: np.eye(4), NAMES[1]: np.full((4, 4), np.nan, dtype=np.float16)}
    steps = {step: np.roll(labels(*side), 3 * n, axis=0) for n, step in enumerate(("raw", "affinity", "par", "crf"))}
    return GalleryItem(name, NAMES[:2], image, cams, steps, lvc_steps={"raw": labels(*side)}, truth=labels(*side), rank=rank)


def losses(count: int = 90) -> pd.DataFrame:
    """losses.csv of so many iterations."""
    t = np.arange(count)
    columns = {"loss": 1.1 / (t + 1), "segmentation": 1 / (t + 1), "diversity": 1 / (t + 1), "learning_rate": 1e-3 - t * 1e-6}
    return pd.DataFrame({"iteration": t} | columns)


def _result(what: str, split: str, used: str, refinement: str, scales: str) -> dict[str, Any]:
    protocol = {"what": what, "split": split, "labels": used, "refinement": refinement, "scales": scales, "images": 7}
    return {"protocol": protocol} | scores(CONFUSION, ("background", *NAMES)).to_json()


def _stage() -> StageRow:
    summary = {"images": {"train": 7}, "steps": ["raw", "par"], "share": 0.123456, "bad": {}}
    return StageRow(
        "cams", "ab" * 16, 75.2, summary, 4_200_000,
        folder=f"/store/`{HOSTILE}`|x", inputs={"knowledge": "cd" * 16}, code="ef" * 16,
        finished="2026-11-24T01:44:02.123+00:00", parts=3, made_by="glorious_otter_", made_by_id=FLOW_RUN,
        peak_host_bytes=3 * 2**29,
    )  # fmt: skip


def _knowledge_map() -> KnowledgeMap:
    random = np.random.default_rng(1)
    centres = np.array([[0.0, 0.0], [1.0, 0.5], [1.01, 0.5]])
    near = np.repeat(centres, 4, axis=0) + random.normal(0, 0.1, (12, 2))
    return KnowledgeMap(near, np.repeat(np.arange(3), 4), near[::3], centres, (0.41, 0.22))


def decoded(uri: str) -> Image.Image:
    """The picture of a data URI."""
    kind, payload = re.fullmatch(r"data:image/(jpeg|png|webp);base64,(.+)", uri, re.S).groups()  # type: ignore[union-attr]
    image = Image.open(io.BytesIO(base64.b64decode(payload, validate=True)), formats=[kind])
    image.load()
    return image
