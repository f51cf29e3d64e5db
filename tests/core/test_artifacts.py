"""What people look at beside the page: pictures and charts drawn right, tables with their protocols, Prefect artifacts."""

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from artifacts.charts import ablation_png, draw_losses, knowledge_png, losses_png
from artifacts.drawing import fit_image, fit_labels, jpeg_data_uri, overlay_cam, overlay_labels
from artifacts.gallery import knowledge_picture
from artifacts.prefect_artifacts.body import MAX_MARKDOWN_BYTES, MarkdownBody, TableBody
from artifacts.prefect_artifacts.run_bodies import ablation_bodies, run_bodies
from artifacts.prefect_artifacts.server import without_pictures
from artifacts.rows import number
from artifacts.stages import cost_rows, stages_markdown
from artifacts.tables import (
    ablation_rows,
    headline_key,
    headline_keys,
    mean_score,
    per_class_rows,
    print_tables,
    results_rows,
)
from artifacts.view import KnowledgeMap, ReportView
from excel_core.datasets.palette import VOC_PALETTE
from excel_core.evaluation.metrics import scores
from tests.report_view import FLOW_RUN, HOSTILE, NAMES, decoded, example_view, gallery_item, labels, losses


@pytest.fixture
def view() -> ReportView:
    return example_view()


def test_every_table_names_its_protocol(view: ReportView) -> None:
    rows = results_rows(view.metrics)
    assert rows[3] == {
        "what": "segmentation", "split": "val", "labels used": "none", "refinement": "CRF",
        "scales": "0.7,1.0,1.2,1.5 + flip", "images": "7", "mIoU": "0.665 [0.61, 0.70]",
        "precision": "0.823", "recall": "0.777",
    }  # fmt: skip
    console = Console(width=100, file=io.StringIO(), force_terminal=False)
    print_tables(view.metrics, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 100
    printed = "\n".join(lines)
    for expected in (
        "(b) image-level ground truth", "(a) 0.7,1.0,1.2,1.5 + flip", "refinement: CRF", "presence mAP 0.950", "recall",
        "segmentation.val.multi_scale_crf 0.665 [0.61, 0.70]", "Ablation: attributes", "0.432 ± 0.010 [0.41, 0.45]",
        "over 3 seeds",
    ):  # fmt: skip
        assert expected in printed


def test_the_artifacts_of_a_run(view: ReportView) -> None:
    made = {body.key: body for body in run_bodies(view, Path("index.html"))}
    names = (
        "results-de-mo", "classes-de-mo-seeds-static-train", "classes-de-mo-segmentation-val", "ablation-de-mo",
        "ablation-chart-de-mo", "attributes-de-mo", "gallery-de-mo", "losses-de-mo", "knowledge-de-mo", "stages-de-mo",
    )  # fmt: skip
    assert list(made) == [f"excel-{name}" for name in names]
    assert all(re.fullmatch("[a-z0-9-]+", key) for key in made)
    for body in made.values():
        if isinstance(body, TableBody):
            assert all(isinstance(value, str) for row in body.rows for value in row.values())
        else:
            assert len(body.markdown.encode()) <= MAX_MARKDOWN_BYTES
    family = made["excel-classes-de-mo-segmentation-val"]
    assert isinstance(family, TableBody) and "labels: none" in family.description
    assert "CRF" not in family.description and "recall of multi scale crf" in family.description
    assert [row["class"] for row in family.rows] == ["background", HOSTILE, "car|van", "kite"]
    columns = ["class", "IoU single scale", "IoU multi scale crf", "precision", "recall"]
    assert list(family.rows[0]) == columns and family.rows[3]["IoU single scale"] == "–"
    assert [body.key for body in ablation_bodies(view.metrics, view.preset)] == [
        "excel-ablation-de-mo",
        "excel-ablation-chart-de-mo",
    ]
    assert ablation_bodies({"ablation": {"rows": []}}, "demo") == ablation_bodies({}, "demo") == []


def test_scores_come_first_and_no_protocol_is_cut_off(view: ReportView) -> None:
    """What the UI has room for, in letters: 35 on a phone of 420 pixels, 80 in a window of 1,400."""
    results = dict(view.metrics["results"])
    last = results["seeds.static.train.par"]
    long_names = {"what": "CAM seed with LVC, the pseudo labels", "split": "held_out_1", "refinement": "affinity+PAR+CRF"}
    results["seeds.static.train.par"] = last | {"protocol": last["protocol"] | long_names, "miou_interval": [0.61, 0.7]}
    made = {body.key: body for body in run_bodies(replace(view, metrics=view.metrics | {"results": results}), Path("i.html"))}
    table, ablation = made["excel-results-de-mo"], made["excel-ablation-de-mo"]
    assert isinstance(table, TableBody) and isinstance(ablation, TableBody)
    columns = list(table.rows[0])
    assert columns[:7] == ["mIoU", "what", "split", "refinement", "scales", "labels used", "images"]
    widths = {column: max(len(column), *(len(row[column]) for row in table.rows)) for column in columns}
    assert sum(widths[column] for column in columns[:2]) < 35 and sum(widths[column] for column in columns[:7]) < 80
    assert table.rows[1] == {
        "mIoU": "0.665", "what": "CAM seed with LVC *", "split": "held_out_1", "refinement": "(b)", "scales": "single",
        "labels used": "(c)", "images": "7", "precision": "0.823", "recall": "0.777", "interval": "[0.61, 0.70]",
    }  # fmt: skip
    assert table.description.endswith(
        "(a) 0.7,1.0,1.2,1.5 + flip; (b) affinity+PAR+CRF; (c) image-level ground truth; * the pseudo labels"
    )
    assert next(iter(ablation.rows[0])) == "mean mIoU" and ablation.rows[0]["interval"] == "± 0.010 [0.41, 0.45]"


def test_stages_link_to_the_runs_that_built_them(view: ReportView) -> None:
    (row,) = view.stages
    other = replace(row, cached=True, made_by="a|b", made_by_id="not-an-id](x)", folder="", peak_gpu_bytes=2**28)
    text = stages_markdown((row, other))
    lines = text.splitlines()
    assert lines[2] == rf"| cams | ran | [glorious_otter\_](../../runs/flow-run/{FLOW_RUN}) | 75.2 | 1.50 | – | 4.2 MB |"
    assert lines[3] == r"| cams | cached | a\|b | 75.2 | 1.50 | 0.25 | 4.2 MB |"
    assert lines[4] == "| total | 1 ran, 1 cached | | 150.4 | 1.50 | 0.25 | 8.4 MB |"
    assert lines[6].startswith("Time and peak memory are what building took")
    assert lines[8:] == ["```text", f"cams  /store/'{HOSTILE}'|x", "```"]


def test_costs_are_summed_in_time_and_the_largest_in_memory(view: ReportView) -> None:
    (row,) = view.stages
    train = replace(row, stage="train", seconds=10.04, peak_host_bytes=2**31, peak_gpu_bytes=2**30)
    assert cost_rows((row, train)) == [
        {"stage": "cams", "seconds": "75.2", "host GiB": "1.50", "GPU GiB": "–"},
        {"stage": "train", "seconds": "10.0", "host GiB": "2.00", "GPU GiB": "1.00"},
        {"stage": "total", "seconds": "85.2", "host GiB": "2.00", "GPU GiB": "1.00"},
    ]
    unknown = replace(row, peak_host_bytes=None)
    assert [each["host GiB"] for each in cost_rows((unknown, train))] == ["–", "2.00", "≥ 2.00"]
    assert cost_rows(()) == [{"stage": "total", "seconds": "0.0", "host GiB": "–", "GPU GiB": "–"}]


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
    old = {"name": "SVC", "miou": 0.28, "by_split": {"val": 0.28, "odd": None}, "threshold": {"val": 0.45}}
    plain = [{"variant": "SVC", "mean mIoU": "0.280", "val": "0.280 at 0.45", "odd": "–"}]
    assert ablation_rows({"ablation": {"rows": [old]}}) == plain
    assert ablation_rows(view.metrics)[0] == {
        "group": "calibration", "variant": "SVC + $TSE$", "mean mIoU": "0.432 ± 0.010 [0.41, 0.45]", "seeds": "3",
        "val": "0.432 at 0.50",
    }  # fmt: skip
    assert ablation_png({"ablation": {"rows": [old]}}) and ablation_png({"ablation": {"rows": []}})
    assert [number(value) for value in (None, float("nan"), float("inf"), 0.12345)] == ["–", "–", "–", "0.123"]


def test_the_headline_is_the_last_of_its_family(view: ReportView) -> None:
    assert headline_keys(view.metrics) == ["seeds.static.train.par", "segmentation.val.multi_scale_crf"]
    assert headline_key(view.metrics) == "segmentation.val.multi_scale_crf"
    seeds = {key: value for key, value in view.metrics["results"].items() if key.startswith("seeds")}
    assert headline_key({"results": seeds}) == "seeds.static.train.par"
    assert headline_key({}) is None


def test_the_gallery_shows_best_median_and_worst_and_counts_the_others(view: ReportView) -> None:
    noise = [gallery_item(f"image{i}", (140, 176)) for i in range(24)]
    smooth = [replace(item, image=np.full_like(item.image, 90)) for item in noise]
    large, body = (_gallery(replace(view, gallery=tuple(items))) for items in (noise, smooth))
    assert len(large.markdown.encode()) <= MAX_MARKDOWN_BYTES and re.search(r"2\d more images are in", large.markdown)
    assert re.findall(r"^## (image\d+)", body.markdown, re.M) == ["image0", "image12", "image23"]
    assert "21 more images are in the report." in body.markdown and "`runs/index.html`" in body.markdown
    pictures = re.findall(r"!\[[^\]]+\]\((data:image/webp;base64,[^)]+)\)", body.markdown)
    assert len(pictures) == 3 * 9 + 3 + 2 and max(decoded(pictures[0]).size) <= 176


def _gallery(view: ReportView) -> MarkdownBody:
    (body,) = [body for body in run_bodies(view, Path("runs") / "index.html") if body.key == "excel-gallery-de-mo"]
    assert isinstance(body, MarkdownBody)
    return body


def test_a_chart_in_the_ui_has_every_pixel_of_the_reports_in_half_the_bytes(view: ReportView) -> None:
    picture = knowledge_picture(view)
    (page,) = [body for body in run_bodies(view, Path("index.html")) if body.key == "excel-knowledge-de-mo"]
    assert picture is not None and isinstance(page, MarkdownBody) and len(page.markdown) < len(picture.uri) / 2
    (uri,) = re.findall(r"\((data:[^)]+)\)", page.markdown)
    assert (np.asarray(decoded(uri)) == np.asarray(decoded(picture.uri).convert("RGB"))).all()


def test_a_page_without_pictures_says_what_they_showed(view: ReportView) -> None:
    pages = [body.markdown for body in run_bodies(view, Path("index.html")) if isinstance(body, MarkdownBody)]
    gallery = next(page for page in pages if page.startswith("# "))
    text = without_pictures(gallery)
    assert "data:" not in text and len(text) < len(gallery) / 4 and text.startswith("Pictures of older runs")
    assert "`index.html`" in text and "mIoU" in text and "*class activation map of car" in text
    assert without_pictures("a [link](../x) of `code`").endswith("a [link](../x) of `code`")


def test_the_loss_curve_is_reproducible(tmp_path: Path) -> None:
    draw_losses(tmp_path / "a.png", losses())
    assert (tmp_path / "a.png").read_bytes() == losses_png(losses()) != losses_png(losses(80))
    with Image.open(tmp_path / "a.png") as image:
        assert not image.info.keys() & {"Software", "Creation Time", "date"} and image.width >= 600
        assert np.asarray(image.convert("L")).std() > 10
    assert losses_png(losses(1)) and losses_png(losses(0))


def test_charts_follow_their_numbers(view: ReportView) -> None:
    other = json.loads(json.dumps(view.metrics))
    other["ablation"]["rows"][0]["high"] += 0.05
    assert ablation_png(view.metrics) == ablation_png(view.metrics) != ablation_png(other)
    found = view.knowledge_map
    assert found is not None
    names = ("$a_b$", "kite", "a very long name of a class")
    assert (
        knowledge_png(found, names) == knowledge_png(found, names) != knowledge_png(replace(found, explained=(0.5, 0.1)), names)
    )
    crowd = KnowledgeMap(np.zeros((0, 2)), np.zeros(0, int), np.zeros((0, 2)), np.zeros((12, 2)), (0.0, 0.0))
    assert knowledge_png(crowd, [f"class {n}" for n in range(12)])


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
        "import sys, artifacts.history, artifacts.report, artifacts.prefect_artifacts.publish\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('prefect', 'dask', 'tasks', 'flows') or 'pyplot' in m])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
