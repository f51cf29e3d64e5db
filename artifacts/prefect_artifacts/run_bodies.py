"""Artifacts of a run, of a stage that ran alone, and of the ablation."""

from collections.abc import Sequence
from pathlib import Path

from artifacts.gallery import (
    Picture,
    ablation_picture,
    curve_picture,
    gallery_markdown,
    knowledge_picture,
    loss_picture,
)
from artifacts.prefect_artifacts.body import (
    MAX_MARKDOWN_BYTES,
    Body,
    MarkdownBody,
    TableBody,
    artifact_key,
    non_empty,
    picture_page,
)
from artifacts.prefect_artifacts.results_body import results_body, score_first
from artifacts.rows import Row, place
from artifacts.stage_pages import StagePage
from artifacts.stages import stages_markdown
from artifacts.tables import (
    ablation_note,
    ablation_rows,
    common_protocol,
    curve_note,
    curve_rows,
    families,
    family_rows,
    protocol_text,
    result_words,
)
from artifacts.view import AttributeRow, Metrics, ReportView

__all__ = ["ablation_bodies", "run_bodies", "stage_bodies"]


def run_bodies(view: ReportView, report: Path, link: str = "") -> list[Body]:
    """What `publish` creates, in order; `report` is the page's path."""
    gallery = gallery_markdown(view, place("The full report", report, link), MAX_MARKDOWN_BYTES)
    page = MarkdownBody(artifact_key("gallery", view.preset), f"Gallery of {_run_words(view)}", gallery)
    return [*_tables(view), page, *_charts(view), *_stages(view, "stages")]


def stage_bodies(stage: str, view: ReportView, pages: Sequence[StagePage], folder: Path) -> list[Body]:
    """What `publish_stage` creates, in order; `folder` is the stage's output."""
    bodies: list[Body] = [
        MarkdownBody(artifact_key(page.name, view.preset), f"{page.title}; {_run_words(view)}", page.markdown) for page in pages
    ]
    if view.gallery or view.segmented:
        pictures = gallery_markdown(view, place("All of them", folder), MAX_MARKDOWN_BYTES)
        bodies.append(MarkdownBody(artifact_key(stage, view.preset), f"Stage {stage} of {_run_words(view)}", pictures))
    return [*bodies, *_tables(view), *_charts(view), *_stages(view, f"stages-{stage}")]


def ablation_bodies(metrics: Metrics, preset: str) -> list[Body]:
    """What `publish_ablation` creates: the table and the chart, or nothing."""
    rows = [score_first(row, "mean mIoU") for row in ablation_rows(metrics)]
    table = TableBody(artifact_key("ablation", preset), ablation_note(metrics), rows)
    return [*non_empty([table]), *_chart("ablation-chart", preset, "Ablation", ablation_picture(metrics))]


def _run_words(view: ReportView) -> str:
    return f"preset {view.preset}, {view.method} method with {view.clip}"


def _tables(view: ReportView) -> list[Body]:
    """Tables of what the view has: results, classes, curve, ablation, attributes."""
    attributes = TableBody(
        artifact_key("attributes", view.preset),
        f"Attributes: {view.attributes_are}; nearest descriptions first; classes with their softmax weights",
        [_attribute_row(row) for row in view.attributes],
    )
    curve = TableBody(artifact_key("curve", view.preset), curve_note(view.curve), curve_rows(view.curve))
    results = results_body(artifact_key("results", view.preset), f"Results of {_run_words(view)}", view.metrics)
    tables = non_empty([results, *_class_tables(view), curve])
    return [*tables, *ablation_bodies(view.metrics, view.preset), *non_empty([attributes])]


def _charts(view: ReportView) -> list[Body]:
    """Charts of what the view has, a page each."""
    return [
        *_chart("losses", view.preset, "Training", loss_picture(view)),
        *_chart("curve-chart", view.preset, "Scores on the way", curve_picture(view.curve)),
        *_chart("knowledge", view.preset, "Knowledge base", knowledge_picture(view)),
    ]


def _stages(view: ReportView, name: str) -> list[Body]:
    if not view.stages:
        return []
    return [MarkdownBody(artifact_key(name, view.preset), f"Stages of {_run_words(view)}", stages_markdown(view.stages))]


def _class_tables(view: ReportView) -> list[TableBody]:
    """A table per family of results: a row per class, the IoU of each step, precision and recall of the last."""
    tables = []
    for family, keys in families(view.metrics).items():
        protocol = protocol_text(common_protocol(view.metrics, keys))
        description = f"{family}: {protocol}; precision and recall of {result_words(keys[-1])}"
        tables.append(TableBody(artifact_key("classes", view.preset, family), description, family_rows(view.metrics, keys)))
    return tables


def _attribute_row(row: AttributeRow) -> Row:
    classes = ", ".join(f"{name} {weight:.3f}" for name, weight in row.classes)
    # Descriptions last: they are long, and the UI cuts a row at its width.
    return {"attribute": str(row.number), "classes that use it": classes, "nearest descriptions": " · ".join(row.descriptions)}


def _chart(name: str, preset: str, title: str, picture: Picture | None) -> list[Body]:
    """A page of one picture, described by its caption; no picture, no page."""
    if picture is None:
        return []
    return [MarkdownBody(artifact_key(name, preset), f"{title}: {picture.caption}", picture_page(picture.alt, picture.png))]
