"""metrics.json (excel-metrics/1) as tables for people: rows of text, Markdown, and the terminal.

Every row of scores carries its protocol; the ablation's is one for all its rows, see `ablation_note`.
"""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "ablation_note", "ablation_rows", "headline_key", "headline_keys", "markdown_table", "markdown_text", "mean_score",
    "number", "per_class_rows", "print_scores", "print_tables", "protocol_text", "results_rows",
]  # fmt: skip

Row = dict[str, str]
ABSENT = "–"  # a value that is undefined or was not measured
PROTOCOL = {"what": "what", "split": "split", "labels": "labels used", "refinement": "refinement", "scales": "scales"}
FOOTNOTE = 15  # a longer protocol cell becomes a footnote in the terminal
TERMINAL_CLASSES = 25  # the per-class table is printed up to so many rows


def number(value: Any, digits: int = 3) -> str:
    """A score as text, `–` for None and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ABSENT
    return f"{value:.{digits}f}"


def mean_score(result: Mapping[str, Any], name: str) -> float | None:
    """Mean of a per-class score over the classes that occur in the truth (those with a recall) where it is defined."""
    recall = result.get("recall", {})
    values = [value for key, value in result.get(name, {}).items() if _defined(value) and _defined(recall.get(key))]
    return sum(values) / len(values) if values else None


def results_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """One row a result: its protocol, number of images, mIoU, mean precision and mean recall."""
    rows = []
    for result in metrics.get("results", {}).values():
        protocol = result.get("protocol", {})
        row = {column: str(protocol.get(field, ABSENT)) for field, column in PROTOCOL.items()}
        row["images"] = str(protocol.get("images", ABSENT))
        row["mIoU"] = number(result.get("miou"))
        rows.append(row | {name: number(mean_score(result, name)) for name in ("precision", "recall")})
    return rows


def per_class_rows(metrics: Mapping[str, Any], key: str) -> list[Row]:
    """One row a class of result `key`, best IoU first, undefined ones last; print its protocol beside it."""
    result = metrics["results"][key]
    iou: dict[str, float | None] = result.get("iou", {})
    ranked = sorted(iou, key=lambda name: (not _defined(iou[name]), -(iou[name] or 0.0), name))
    return [
        {
            "class": name,
            "IoU": number(iou[name]),
            "precision": number(result.get("precision", {}).get(name)),
            "recall": number(result.get("recall", {}).get(name)),
            "FP / TP": number(result.get("confusion_ratio", {}).get(name), digits=2),
        }
        for name in ranked
    ]


def ablation_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """One row a variant: mean mIoU over the splits, and each split's with the threshold that it was read at."""
    rows = []
    for found in metrics.get("ablation", {}).get("rows", []):
        row = {"variant": str(found.get("name", ABSENT)), "mean mIoU": number(found.get("miou"))}
        thresholds = found.get("threshold", {})
        for split, miou in found.get("by_split", {}).items():
            threshold = number(thresholds.get(split), digits=2)
            row[str(split)] = number(miou) + (f" at {threshold}" if threshold != ABSENT else "")
        rows.append(row)
    return rows


def ablation_note(metrics: Mapping[str, Any]) -> str:
    """The protocol of the ablation, and the zero-shot presence mAP measured on the same images."""
    ablation = metrics.get("ablation", {})
    parts = [protocol_text(ablation["protocol"])] if ablation.get("protocol") else []
    presence = ablation.get("presence_map") or {}
    if presence:
        splits = ", ".join(f"{split} {number(value)}" for split, value in presence.get("by_split", {}).items())
        parts.append(f"zero-shot presence mAP {number(presence.get('mean'))}" + (f" ({splits})" if splits else ""))
    return "; ".join(parts)


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """A protocol in one line; fields that are not part of every protocol come with their names."""
    leading = [str(protocol[field]) for field in ("what", "split") if protocol.get(field)]
    return " · ".join([*leading, *(f"{k}: {_plain(v)}" for k, v in protocol.items() if k not in ("what", "split"))])


def headline_keys(metrics: Mapping[str, Any]) -> list[str]:
    """The last result of each family, e.g. the fully refined seeds of `seeds.lvc.train`, in order."""
    return list({key.rpartition(".")[0]: key for key in metrics.get("results", {})}.values())


def headline_key(metrics: Mapping[str, Any]) -> str | None:
    """The one result to show first: segmentation of the first split where there is one, else the last seeds."""
    keys = headline_keys(metrics)
    return next((key for key in keys if key.startswith("segmentation.")), keys[-1] if keys else None)


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows as a GitHub-flavoured Markdown table, cells escaped; no rows, no text."""
    columns = _columns(rows)
    if not columns:
        return ""
    cells = [columns, *([row.get(column, ABSENT) for column in columns] for row in rows)]
    head, *body = (" | ".join(map(markdown_text, line)) for line in cells)
    return "".join(f"| {line} |\n" for line in [head, " | ".join(["---"] * len(columns)), *body])


def markdown_text(text: str) -> str:
    """`text` so that Markdown shows it as it is, on one line: no HTML, links, emphasis or cell ends."""
    # An underscore inside a word is only an underscore; at a word's end it would begin or end emphasis.
    special = r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_]))"
    escaped = re.sub(special, r"\\\1", " ".join(text.split()))
    return html.escape(escaped, quote=False)


def print_tables(metrics: Mapping[str, Any], console: Console) -> None:
    """Print results, the headline's classes, the ablation, and what was skipped; 100 columns are enough."""
    _print_table(console, "Results", results_rows(metrics), "means over the classes in the truth")
    key = headline_key(metrics)
    if key is not None:
        rows = per_class_rows(metrics, key)
        if len(rows) <= TERMINAL_CLASSES:
            _print_table(console, "By class", rows, protocol_text(metrics["results"][key]["protocol"]))
    _print_table(console, "Ablation", ablation_rows(metrics), ablation_note(metrics))
    for what, reason in metrics.get("skipped", {}).items():
        console.print(Text(f"not scored: {what}: {reason}"))


def print_scores(scores: Mapping[str, Any], console: Console) -> None:
    """Print one evaluation's scores (`Scores.to_json()`), class by class."""
    rows = per_class_rows({"results": {"all": scores}}, "all")
    _print_table(console, "By class", rows, f"mIoU {number(scores['miou'])} over the classes in the truth")


def _print_table(console: Console, title: str, rows: Sequence[Row], note: str) -> None:
    if not rows:
        return
    rows, footnotes = _footnoted(rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold")
    for column in _columns(rows):
        cells = [row.get(column, ABSENT) for row in rows]
        figures = column not in PROTOCOL.values() and all(re.match(r"[\d.–]", cell) for cell in cells)
        longest = max((len(word) for cell in cells for word in cell.split()), default=0)
        table.add_column(Text(column), justify="right" if figures else "left", no_wrap=figures, min_width=longest)
    for row in rows:
        table.add_row(*(Text(row.get(column, ABSENT)) for column in _columns(rows)))
    console.print(table)
    for text in [*footnotes, note]:
        console.print(Text(text, style="dim"))
    console.print()


def _footnoted(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows whose long protocol cells are letters, and what these stand for: a terminal is narrow."""
    long = {row.get(c, "") for row in rows for c in PROTOCOL.values() if c != "what"}
    letters = {cell: f"({chr(ord('a') + i)})" for i, cell in enumerate(sorted(c for c in long if len(c) > FOOTNOTE))}
    short = [{c: letters.get(value, value) if c in PROTOCOL.values() else value for c, value in row.items()} for row in rows]
    return short, [f"{letter} {cell}" for cell, letter in letters.items()]


def _columns(rows: Iterable[Row]) -> list[str]:
    """Every column of the rows, in order of first appearance."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def _defined(value: Any) -> bool:
    return value is not None and math.isfinite(value)
