"""The results as Prefect artifacts: tables, and a Markdown page with small pictures. Prefect is imported on use.

Keys are stable, so that the UI shows an artifact's history from run to run:

    excel-results-<preset>    every result with its protocol
    excel-classes-<preset>    the headline result by class
    excel-ablation-<preset>   the ablation, where one was made
    excel-gallery-<preset>    pictures, headline numbers, what was skipped, and where the report is
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from artifacts.gallery import Picture, PictureGroup, PictureSize, gallery_groups, segmented_pictures
from artifacts.tables import (
    ablation_note,
    ablation_rows,
    headline_key,
    headline_keys,
    markdown_text,
    number,
    per_class_rows,
    protocol_text,
    results_rows,
)
from artifacts.view import ReportView

__all__ = ["MarkdownBody", "TableBody", "bodies", "publish"]

MARKDOWN_BYTES = 1_000_000  # artifacts lie in the server's database
SIZE = PictureSize(side=176, quality=70)
COLUMNS = 4  # pictures in a row of the Markdown tables; more are cut off in the UI
FIRST = ("what", "split", "mIoU", "precision", "recall")  # what the UI shows of the results without scrolling


@dataclass(frozen=True)
class TableBody:
    """A table artifact: its rows, and their protocol as description."""

    key: str
    description: str
    rows: list[dict[str, str]]


@dataclass(frozen=True)
class MarkdownBody:
    """A Markdown artifact of at most MARKDOWN_BYTES."""

    key: str
    description: str
    markdown: str


def publish(view: ReportView, report: Path) -> list[str]:
    """Create the artifacts of a run and link them to the flow or task run that calls this → their keys."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    made = bodies(view, report)
    for body in made:
        # `_sync`: inside an async flow these functions would otherwise return coroutines that nobody awaits.
        if isinstance(body, TableBody):
            create_table_artifact(table=body.rows, key=body.key, description=body.description, _sync=True)  # type: ignore[call-arg]
        else:
            create_markdown_artifact(markdown=body.markdown, key=body.key, description=body.description, _sync=True)  # type: ignore[call-arg]
    return [body.key for body in made]


def bodies(view: ReportView, report: Path) -> list[TableBody | MarkdownBody]:
    """What `publish` creates, in order; tables without rows are left out."""
    metrics, headline = view.metrics, headline_key(view.metrics)
    classes = per_class_rows(metrics, headline) if headline else []
    protocol = protocol_text(metrics["results"][headline].get("protocol", {})) if headline else ""
    about = f"{view.method} method with {view.clip}"
    tables = [
        TableBody(_key("results", view), f"Results of preset {view.preset}, {about}", _scores_first(results_rows(metrics))),
        TableBody(_key("classes", view), protocol, classes),
        TableBody(_key("ablation", view), ablation_note(metrics), ablation_rows(metrics)),
    ]
    gallery = MarkdownBody(_key("gallery", view), f"Gallery of preset {view.preset}, {about}", _gallery(view, report))
    return [*(table for table in tables if table.rows), gallery]


def _scores_first(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{column: row[column] for column in (*FIRST, *(c for c in row if c not in FIRST))} for row in rows]


def _key(name: str, view: ReportView) -> str:
    """Lowercase letters, digits and dashes, as Prefect asks."""
    preset = re.sub(r"[^a-z0-9]+", "-", view.preset.lower()).strip("-")
    return f"excel-{name}-{preset}".rstrip("-")


def _gallery(view: ReportView, report: Path) -> str:
    """The Markdown page; images that would not fit are left out, and said."""
    parts = [f"# {markdown_text(view.title)}\n", f"The full report: `{str(report).replace('`', '')}`\n"]
    parts += [f"* **{found}** mIoU: {markdown_text(note)}" for found, note in _headlines(view)]
    parts += [f"* not scored: {markdown_text(f'{k}: {v}')}" for k, v in view.metrics.get("skipped", {}).items()]
    names = ", ".join(f"{value} {name}" for value, name in enumerate(view.class_names, start=1))
    parts.append(f"\nNumbers in the pictures are classes: {markdown_text(names)}.\n")
    left = MARKDOWN_BYTES - 500 - sum(len(part.encode()) + 1 for part in parts)
    shown = 0
    for block in chain(_gallery_blocks(view), _segmented_blocks(view)):
        left -= len(block.encode()) + 1
        if left < 0:
            break
        parts.append(block)
        shown += 1
    total = len(view.gallery) + len(view.segmented)
    if shown < total:
        parts.append(f"{total - shown} more images are in the report.")
    return "\n".join(parts) + "\n"


def _headlines(view: ReportView) -> list[tuple[str, str]]:
    """(mIoU, protocol) of each headline result."""
    found = (view.metrics["results"][key] for key in headline_keys(view.metrics))
    return [(number(result.get("miou")), protocol_text(result.get("protocol", {}))) for result in found]


def _gallery_blocks(view: ReportView) -> Iterator[str]:
    for item in view.gallery:
        image, *groups = gallery_groups(item, view.class_names, SIZE)
        if item.cams:
            image, groups = PictureGroup("", image.pictures + groups[0].pictures), groups[1:]
        title = f"## {markdown_text(item.id)}: {markdown_text(', '.join(item.labels))}\n"
        rows = [_picture_table(image.pictures), *(_picture_table(group.pictures, group.title) for group in groups)]
        yield "\n".join([title, *rows])


def _segmented_blocks(view: ReportView) -> Iterator[str]:
    for item in view.segmented:
        pictures = segmented_pictures(item, view.class_names, SIZE)
        yield f"## {markdown_text(item.id)}, segmented\n\n{_picture_table(pictures)}"


def _picture_table(pictures: tuple[Picture, ...], title: str = "") -> str:
    """Captions over pictures, COLUMNS in a row."""
    rows = []
    for start in range(0, len(pictures), COLUMNS):
        row = pictures[start : start + COLUMNS]
        captions = " | ".join(markdown_text(picture.caption) for picture in row)
        shown = " | ".join(f"![{markdown_text(picture.alt)}]({picture.uri})" for picture in row)
        rows.append(f"| {captions} |\n| {' | '.join(['---'] * len(row))} |\n| {shown} |\n")
    return "\n".join([f"{markdown_text(title)}\n", *rows] if title else rows)
