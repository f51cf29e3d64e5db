"""What people look at: pictures drawn right, tables with their protocols, a report that stands alone and escapes."""

import base64
import html.parser
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from artifacts.charts import draw_losses, losses_png
from artifacts.html_report import write_report
from artifacts.pictures import fit_image, fit_labels, jpeg_data_uri, overlay_cam, overlay_labels
from artifacts.prefect_artifacts import MARKDOWN_BYTES, MarkdownBody, TableBody, bodies
from artifacts.tables import (
    ablation_rows,
    headline_key,
    headline_keys,
    markdown_table,
    mean_score,
    number,
    per_class_rows,
    print_tables,
    results_rows,
)
from artifacts.view import GalleryItem, ReportView, SegmentedItem, StageRow
from excel_core.metrics import scores
from excel_core.palette import VOC_PALETTE

HOSTILE = '<script>alert("x")</script>'
NAMES = ("car|van", HOSTILE, "kite")
VOID = {"meta", "img", "br", "link", "input", "hr"}


def result(what: str, split: str, labels: str, refinement: str, scales: str) -> dict[str, Any]:
    protocol = {"what": what, "split": split, "labels": labels, "refinement": refinement, "scales": scales, "images": 7}
    confusion = np.array([[80, 5, 5, 0], [10, 20, 0, 0], [9, 0, 31, 0], [0, 0, 0, 0]])
    return {"protocol": protocol} | scores(confusion, ("background", *NAMES)).to_json()


def metrics() -> dict[str, Any]:
    truth = "image-level ground truth"
    flips = "0.7,1.0,1.2,1.5 + flip"
    rows = [{"name": "SVC", "miou": 0.28, "by_split": {"val": 0.28, "odd": None}, "threshold": {"val": 0.45}}]
    return {
        "format": "excel-metrics/1",
        "preset": "demo",
        "method": "reference",
        "clip": "excel-tiny",
        "results": {
            "seeds.static.train.raw": result("CAM seed", "train", truth, "raw", "single"),
            "seeds.static.train.par": result("CAM seed", "train", truth, "affinity+PAR", "single"),
            "segmentation.val.single_scale": result("segmentation", "val", "none", "none", "single"),
            "segmentation.val.multi_scale_crf": result("segmentation", "val", "none", "CRF", flips),
        },
        "ablation": {
            "protocol": {"what": "CAMs, not refined", "splits": ["val"], "labels": truth, "images": {"val": 7}},
            "rows": rows,
            "presence_map": {"mean": 0.95, "by_split": {"val": 0.95}},
        },
        "skipped": {HOSTILE: "no masks in SegmentationClass"},
    }


def labels(height: int = 40, width: int = 60) -> np.ndarray:
    values = np.zeros((height, width), dtype=np.uint8)
    values[5:25, 5:30], values[10:35, 30:55], values[36:, :] = 1, 2, 255
    return values


def gallery_item(name: str, side: tuple[int, int] = (40, 60)) -> GalleryItem:
    image = np.random.default_rng(0).integers(0, 256, (*side, 3), dtype=np.uint8)
    cams = {NAMES[0]: np.eye(4), NAMES[1]: np.full((4, 4), np.nan, dtype=np.float16)}
    steps = {"raw": labels(*side), "affinity": labels(*side), "par": labels(*side)}
    return GalleryItem(name, NAMES[:2], image, cams, steps, lvc_steps={"raw": labels(*side)}, truth=labels(*side))


def losses(count: int = 90) -> pd.DataFrame:
    t = np.arange(count)
    columns = {"loss": 1.1 / (t + 1), "segmentation": 1 / (t + 1), "diversity": 1 / (t + 1), "learning_rate": 1e-3 - t * 1e-6}
    return pd.DataFrame({"iteration": t} | columns)


@pytest.fixture
def view() -> ReportView:
    return ReportView(
        title=f"Run of {HOSTILE}",
        preset="De_mo",
        method="reference",
        clip="excel-tiny",
        metrics=metrics(),
        stages=(StageRow("cams", "ab" * 16, 75.2, {"images": 7, "steps": ["raw", "par"], "share": 0.123456}, 4_200_000),),
        gallery=(gallery_item("one"), gallery_item(HOSTILE)),
        segmented=(
            SegmentedItem("val|1", gallery_item("x").image, labels(), labels()),
            SegmentedItem("no truth", gallery_item("x").image, labels()),
        ),
        losses=losses(),
        attributes=(("a red roof", HOSTILE), ("a sail",)),
        spec={"train": {"note": HOSTILE}, "folder": Path("runs")},
        class_names=NAMES,
    )


class Page(html.parser.HTMLParser):
    """Collects tags and text, and asserts that every tag that opens also closes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def decoded(uri: str) -> Image.Image:
    kind, payload = re.fullmatch(r"data:image/(jpeg|png);base64,(.+)", uri, re.S).groups()  # type: ignore[union-attr]
    image = Image.open(io.BytesIO(base64.b64decode(payload, validate=True)), formats=[kind])
    image.load()
    return image


def test_the_page_stands_alone_and_its_pictures_decode(tmp_path: Path, view: ReportView) -> None:
    path = write_report(tmp_path, view)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"] and path == tmp_path / "index.html"
    page = Page(path.read_text(encoding="utf-8"))
    images = page.all("img")
    assert len(images) == 2 * (2 + 2 + 3 + 1) + (3 + 2) + 1
    for image in images:
        assert (image["alt"] or "").strip() and min(decoded(image["src"] or "").size) > 1
    addresses = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("href", "src")]
    assert all((value or "").startswith(("#", "data:image/")) for value in addresses)
    assert (
        not page.all("script") and not page.all("link") and "url(" not in path.read_text() and "@import" not in path.read_text()
    )
    sections = {attributes["id"] for attributes in page.all("section")}
    assert {address[1:] for address in addresses if address and address[0] == "#"} <= sections


def test_hostile_names_stay_text(tmp_path: Path, view: ReportView) -> None:
    source = write_report(tmp_path, view).read_text(encoding="utf-8")
    assert "<script" not in source
    text = "".join(Page(source).text)
    for place in (f"Run of {HOSTILE}", f"car|van, {HOSTILE}", f"Not scored: {HOSTILE}"):
        assert place in text
    assert json.loads(text[text.index('{\n  "train"') : text.rindex("}") + 1]) == {"train": {"note": HOSTILE}, "folder": "runs"}
    markdown = bodies(view, Path("index.html"))[-1]
    assert isinstance(markdown, MarkdownBody) and "<script" not in markdown.markdown


def test_the_page_of_a_run_with_nothing_to_show(tmp_path: Path, view: ReportView) -> None:
    bare = replace(view, metrics={"results": {}}, stages=(), gallery=(), segmented=(), losses=None, attributes=())
    page = Page(write_report(tmp_path, bare).read_text(encoding="utf-8"))
    assert "Nothing was scored." in "".join(page.text) and not page.all("img")
    assert [body.key for body in bodies(bare, tmp_path)] == ["excel-gallery-de-mo"]


def test_every_table_names_its_protocol(view: ReportView) -> None:
    rows = results_rows(view.metrics)
    assert rows[3] == {
        "what": "segmentation", "split": "val", "labels used": "none", "refinement": "CRF",
        "scales": "0.7,1.0,1.2,1.5 + flip", "images": "7", "mIoU": "0.665", "precision": "0.823", "recall": "0.777",
    }  # fmt: skip
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    print_tables(view.metrics, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 100
    printed = "\n".join(lines)
    for expected in ("(b) image-level ground truth", "(a) 0.7,1.0,1.2,1.5 + flip", "refinement: CRF", "presence mAP 0.950"):
        assert expected in printed
    made = {body.key: body for body in bodies(view, Path("index.html"))}
    assert list(made) == [f"excel-{name}-de-mo" for name in ("results", "classes", "ablation", "gallery")]
    for name in ("classes", "ablation"):
        body = made[f"excel-{name}-de-mo"]
        assert isinstance(body, TableBody) and "labels: " in body.description
        assert all(isinstance(value, str) for row in body.rows for value in row.values())


def test_means_are_those_of_the_metrics() -> None:
    confusion = np.array([[80, 5, 5, 2], [10, 20, 0, 0], [9, 0, 31, 0], [0, 0, 0, 0]])
    expected = scores(confusion, ("background", *NAMES))
    found = expected.to_json()
    assert mean_score(found, "precision") == pytest.approx(expected.mean_precision)
    assert mean_score(found, "recall") == pytest.approx(expected.mean_recall)
    assert mean_score({}, "recall") is None


def test_classes_are_ranked_and_undefined_values_last(view: ReportView) -> None:
    rows = per_class_rows(view.metrics, "seeds.static.train.raw")
    assert [row["class"] for row in rows] == ["background", HOSTILE, "car|van", "kite"]
    assert rows[-1] == {"class": "kite", "IoU": "–", "precision": "–", "recall": "–", "FP / TP": "–"}
    assert ablation_rows(view.metrics) == [{"variant": "SVC", "mean mIoU": "0.280", "val": "0.280 at 0.45", "odd": "–"}]
    assert [number(value) for value in (None, float("nan"), float("inf"), 0.12345)] == ["–", "–", "–", "0.123"]


def test_the_headline_is_the_last_of_its_family(view: ReportView) -> None:
    assert headline_keys(view.metrics) == ["seeds.static.train.par", "segmentation.val.multi_scale_crf"]
    assert headline_key(view.metrics) == "segmentation.val.multi_scale_crf"
    seeds = {key: value for key, value in view.metrics["results"].items() if key.startswith("seeds")}
    assert headline_key({"results": seeds}) == "seeds.static.train.par"
    assert headline_key({}) is None


def test_markdown_cells_are_escaped() -> None:
    table = markdown_table([{"class": "a|b", "x": "<b>*c*\n[d](e)"}, {"class": "held_out_1", "x": "_f_"}])
    assert table.splitlines() == [
        "| class | x |",
        "| --- | --- |",
        r"| a\|b | &lt;b&gt;\*c\* \[d\](e) |",
        r"| held_out_1 | \_f\_ |",
    ]
    assert markdown_table([]) == ""


def test_the_markdown_artifact_stays_small_and_says_what_it_leaves_out(view: ReportView) -> None:
    many = replace(view, gallery=tuple(gallery_item(f"image{i}", (140, 176)) for i in range(24)))
    body = bodies(many, Path("runs") / "index.html")[-1]
    assert isinstance(body, MarkdownBody) and len(body.markdown.encode()) <= MARKDOWN_BYTES
    shown = body.markdown.count("\n## ")
    assert 3 < shown < 24 and f"{26 - shown} more images are in the report." in body.markdown
    assert "`runs/index.html`" in body.markdown
    pictures = re.findall(r"!\[[^\]]+\]\((data:image/jpeg;base64,[^)]+)\)", body.markdown)
    assert len(pictures) == 8 * shown and max(decoded(pictures[0]).size) <= 176


def test_the_loss_curve_is_reproducible(tmp_path: Path) -> None:
    draw_losses(tmp_path / "a.png", losses())
    assert (tmp_path / "a.png").read_bytes() == losses_png(losses()) != losses_png(losses(80))
    with Image.open(tmp_path / "a.png") as image:
        assert not image.info.keys() & {"Software", "Creation Time", "date"} and image.width >= 600
        assert np.asarray(image.convert("L")).std() > 10
    assert losses_png(losses(1)) and losses_png(losses(0))


def test_cam_overlay_brightens_evenly() -> None:
    image = np.full((32, 101, 3), 128, dtype=np.uint8)
    light = overlay_cam(image, np.linspace(0, 1, 101)[None]) @ np.array([0.299, 0.587, 0.114])
    steps = np.diff(light[0, 5:-5:10])
    assert (steps > 0).all() and steps.max() < 3 * steps.min()
    assert overlay_cam(image, np.array([[0, 1], [0, 1]], dtype=np.float16)).shape == image.shape


def test_label_overlay_keeps_background_tints_and_outlines() -> None:
    image, values = np.full((40, 60, 3), 100, dtype=np.uint8), labels()
    drawn = overlay_labels(image, values)
    assert (drawn[0, :] == 100).all() and (drawn[38, :] != 100).any()
    assert (drawn[5, 5:30] == 255).all() and (drawn[4, 5:30] == 0).all()
    red = drawn[6, 6].astype(float) - 100
    assert np.corrcoef(red, VOC_PALETTE[1].astype(float) - 100)[0, 1] > 0.99
    assert (drawn[8:22, 8:27] > 200).all(axis=-1).any()  # the class's number, white inside the region
    assert (overlay_labels(image, np.zeros((40, 60), np.uint8)) == image).all()


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (30, 500), (128, 128), (300, 200)])
def test_pictures_and_labels_are_fitted_alike(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), dtype=np.uint8)
    fitted, values = fit_image(image, 256), fit_labels(image[..., 0], 256)
    assert fitted.shape[:2] == values.shape and max(values.shape) <= 256 and max(values.shape) > 128
    assert overlay_labels(fitted, np.full_like(values, 3)).shape == fitted.shape
    assert max(decoded(jpeg_data_uri(fitted, max_side=64)).size) == 64


def test_nothing_but_excel_core_is_imported_until_published() -> None:
    code = (
        "import sys, artifacts.charts, artifacts.html_report, artifacts.prefect_artifacts\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('prefect', 'dask', 'tasks', 'flows') or 'pyplot' in m])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
