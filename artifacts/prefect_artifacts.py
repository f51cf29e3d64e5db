"""The results as Prefect artifacts: tables, and Markdown pages with small pictures. Prefect is imported on use.

Keys are stable, so that the UI shows an artifact's history from run to run:

    excel-results-<preset>            every result with its protocol
    excel-classes-<preset>-<family>   a family of results by class, e.g. seeds-lvc-train, segmentation-val
    excel-paper-<table>               a table of the paper, ours beside the published figures
    excel-ablation-<preset>           the ablation's rows
    excel-ablation-chart-<preset>     the same with intervals, drawn
    excel-gallery-<preset>            pictures, headline numbers, what was skipped, and where the report is
    excel-attributes-<preset>         attributes: their nearest descriptions and the classes that use them
    excel-losses-<preset>             the loss curve of training
    excel-curve-<preset>              scores of the segmenters kept during training, with the published log's
    excel-curve-chart-<preset>        the same, drawn
    excel-knowledge-<preset>          the map of descriptions, attributes and classes
    excel-stages-<preset>             what this run built or found, by which run it was built, and where it lies
    excel-figure-<number>-<preset>    the paper's figures 4 to 6 of the run's own images

What a run has nothing for is left out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.chart_pictures import ablation_picture, curve_picture, knowledge_picture, loss_picture
from artifacts.curve_rows import curve_note, curve_rows
from artifacts.gallery import Picture
from artifacts.paper_table import paper_markdown
from artifacts.pictures import bounded_data_uri
from artifacts.prefect_gallery import gallery_markdown
from artifacts.provenance import stages_markdown
from artifacts.rows import Row, markdown_text
from artifacts.tables import (
    ablation_note,
    ablation_rows,
    common_protocol,
    families,
    family_rows,
    protocol_text,
    results_rows,
    words,
)
from artifacts.view import AttributeRow, ReportView
from excel_core.files import read_json

__all__ = [
    "MARKDOWN_BYTES", "MarkdownBody", "TableBody", "ablation_bodies", "bodies", "figure_bodies", "publish", "publish_ablation",
    "publish_figures", "publish_paper",
]  # fmt: skip

MARKDOWN_BYTES = 1_000_000  # artifacts lie in the server's database


@dataclass(frozen=True)
class TableBody:
    """A table artifact: its rows, and their protocol as description."""

    key: str
    description: str
    rows: list[Row]


@dataclass(frozen=True)
class MarkdownBody:
    """A Markdown artifact of at most MARKDOWN_BYTES."""

    key: str
    description: str
    markdown: str


def publish(view: ReportView, report: Path) -> list[str]:
    """Create the artifacts of a run and link them to the flow or task run that calls this → their keys."""
    return _create(bodies(view, report))


def publish_ablation(metrics: Mapping[str, Any], preset: str) -> list[str]:
    """The same for the ablation alone; of metrics.json's content only `ablation` is read."""
    return _create(ablation_bodies(metrics, preset))


def publish_paper(table: str, path: Path) -> list[str]:
    """A table of the paper by its JSON, as a Markdown page → its key."""
    document = read_json(path)
    description = f"{document['title']}, preset {document['preset']}"
    return _create([MarkdownBody(_key("paper", table), description, paper_markdown(document))])


def publish_figures(folder: Path) -> list[str]:
    """The same for the paper's figures; `folder` is the output of the stage `figures`."""
    return _create(figure_bodies(folder))


def bodies(view: ReportView, report: Path) -> list[TableBody | MarkdownBody]:
    """What `publish` creates, in order; `report` is the page's path."""
    about = f"preset {view.preset}, {view.method} method with {view.clip}"
    results = TableBody(_key("results", view.preset), f"Results of {about}", results_rows(view.metrics))
    gallery = gallery_markdown(view, report, MARKDOWN_BYTES)
    attributes = TableBody(
        _key("attributes", view.preset),
        f"Attributes: {view.attributes_are}; nearest descriptions first; classes with their softmax weights",
        [_attribute_row(row) for row in view.attributes],
    )
    pages = [
        MarkdownBody(_key("gallery", view.preset), f"Gallery of {about}", gallery),
        *_chart("losses", view.preset, "Training", loss_picture(view)),
        *_chart("curve-chart", view.preset, "Scores on the way", curve_picture(view.curve)),
        *_chart("knowledge", view.preset, "Knowledge base", knowledge_picture(view)),
    ]
    if view.stages:
        pages.append(MarkdownBody(_key("stages", view.preset), f"Stages of {about}", stages_markdown(view.stages)))
    curve = TableBody(_key("curve", view.preset), curve_note(view.curve), curve_rows(view.curve))
    tables = [results, *_class_tables(view), curve]
    return [*_with_rows(tables), *ablation_bodies(view.metrics, view.preset), *_with_rows([attributes]), *pages]


def ablation_bodies(metrics: Mapping[str, Any], preset: str) -> list[TableBody | MarkdownBody]:
    """What `publish_ablation` creates: the table and the chart, or nothing."""
    table = TableBody(_key("ablation", preset), ablation_note(metrics), ablation_rows(metrics))
    return [*_with_rows([table]), *_chart("ablation-chart", preset, "Ablation", ablation_picture(metrics))]


def figure_bodies(folder: Path) -> list[TableBody | MarkdownBody]:
    """What `publish_figures` creates: a page a figure, its picture as PNG where that fits, else as JPEG."""
    about = read_json(folder / "figures.json")
    shown = ", ".join(f"{image['class']} in {image['id']}" for image in about["images"])
    pages: list[TableBody | MarkdownBody] = []
    for number, title in about["figures"].items():
        alt = markdown_text(f"figure {number}, {title}: {shown}")
        room = MARKDOWN_BYTES - len(alt.encode()) - 10
        picture = bounded_data_uri((folder / f"figure_{number}.png").read_bytes(), room)
        description = f"Figure {number}: {title}; preset {about['preset']}, {about['method']} method with {about['clip']}"
        pages.append(MarkdownBody(_key("figure", number, about["preset"]), description, f"![{alt}]({picture})\n"))
    return pages


def _create(made: Sequence[TableBody | MarkdownBody]) -> list[str]:
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    for body in made:
        # `_sync`: inside an async flow these functions would otherwise return coroutines that nobody awaits.
        if isinstance(body, TableBody):
            create_table_artifact(table=body.rows, key=body.key, description=body.description, _sync=True)  # type: ignore[call-arg]
        else:
            create_markdown_artifact(markdown=body.markdown, key=body.key, description=body.description, _sync=True)  # type: ignore[call-arg]
    return [body.key for body in made]


def _class_tables(view: ReportView) -> list[TableBody]:
    """One a family: a row a class, the IoU of each step, precision and recall of the last."""
    tables = []
    for family, keys in families(view.metrics).items():
        protocol = protocol_text(common_protocol(view.metrics, keys))
        description = f"{family}: {protocol}; precision and recall of {words(keys[-1])}"
        tables.append(TableBody(_key("classes", view.preset, family), description, family_rows(view.metrics, keys)))
    return tables


def _attribute_row(row: AttributeRow) -> Row:
    classes = ", ".join(f"{name} {weight:.3f}" for name, weight in row.classes)
    # Descriptions last: they are long, and the UI cuts a row at its width.
    return {"attribute": str(row.number), "classes that use it": classes, "nearest descriptions": " · ".join(row.descriptions)}


def _chart(name: str, preset: str, title: str, picture: Picture | None) -> list[TableBody | MarkdownBody]:
    """A page of one picture, described by its words; none, no page."""
    if picture is None:
        return []
    page = f"![{markdown_text(picture.alt)}]({picture.uri})\n"
    if len(page.encode()) > MARKDOWN_BYTES:
        page = "The picture is too large for an artifact; it is in the report.\n"
    return [MarkdownBody(_key(name, preset), f"{title}: {picture.caption}", page)]


def _with_rows(tables: Sequence[TableBody]) -> list[TableBody | MarkdownBody]:
    return [table for table in tables if table.rows]


def _key(name: str, *parts: str) -> str:
    """Lowercase letters, digits and dashes, as Prefect asks."""
    cleaned = (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    return "-".join(filter(None, ["excel", name, *cleaned]))
