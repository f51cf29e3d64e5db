"""metrics.json (excel-metrics/1) as tables for people: rows of text, and the terminal.

Every row of scores carries its protocol; the ablation's is one for all its rows, see `ablation_note`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from artifacts.rows import ABSENT, Row, defined, interval, number, print_rows

__all__ = [
    "ablation_note", "ablation_rows", "common_protocol", "families", "family_rows", "headline_key", "headline_keys",
    "mean_score", "miou_text", "per_class_rows", "print_scores", "print_tables", "protocol_text", "results_rows", "words",
]  # fmt: skip

# Field -> column; scores come early, for who sees the first columns only: on a phone, or in the Prefect UI.
RESULTS = {
    "what": "what", "split": "split", "refinement": "refinement", "mIoU": "mIoU", "precision": "precision", "recall": "recall",
    "scales": "scales", "labels": "labels used", "images": "images",
}  # fmt: skip
PROTOCOL = ("what", "split", "refinement", "scales", "labels used")  # columns of words
FOOTNOTE = 15  # a longer protocol cell becomes a footnote in the terminal
TERMINAL_CLASSES = 25  # the per-class table is printed up to so many rows


def mean_score(result: Mapping[str, Any], name: str) -> float | None:
    """Mean of a per-class score over the classes that occur in the truth (those with a recall) where it is defined."""
    recall = result.get("recall", {})
    values = [value for key, value in result.get(name, {}).items() if defined(value) and defined(recall.get(key))]
    return sum(values) / len(values) if values else None


def miou_text(result: Mapping[str, Any]) -> str:
    """A result's mIoU with its 95 % bootstrap interval over images, where one was made."""
    low, high = result.get("miou_interval") or (None, None)
    return interval({"miou": result.get("miou"), "low": low, "high": high}, "miou")


def results_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """One row a result: mIoU, mean precision and mean recall amid its protocol and number of images."""
    rows = []
    for result in metrics.get("results", {}).values():
        protocol = result.get("protocol", {}) | {"mIoU": miou_text(result)}
        protocol |= {name: number(mean_score(result, name)) for name in ("precision", "recall")}
        rows.append({column: str(protocol.get(field, ABSENT)) for field, column in RESULTS.items()})
    return rows


def per_class_rows(metrics: Mapping[str, Any], key: str) -> list[Row]:
    """One row a class of result `key`, best IoU first, undefined ones last; print its protocol beside it."""
    result = metrics["results"][key]
    iou: dict[str, float | None] = result.get("iou", {})
    return [
        {
            "class": name,
            "IoU": number(iou[name]),
            "precision": number(result.get("precision", {}).get(name)),
            "recall": number(result.get("recall", {}).get(name)),
            "FP / TP": number(result.get("confusion_ratio", {}).get(name), digits=2),
        }
        for name in _best_first(iou)
    ]


def families(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """The result keys of each family in order: `seeds.lvc.train` has its `.raw` … `.crf`."""
    found: dict[str, list[str]] = {}
    for key in metrics.get("results", {}):
        found.setdefault(key.rpartition(".")[0], []).append(key)
    return found


def family_rows(metrics: Mapping[str, Any], keys: Sequence[str]) -> list[Row]:
    """One row a class over the results `keys` of one family: the IoU of each, precision and recall of the last; best
    last IoU first."""
    results = [(words(key), metrics["results"][key]) for key in keys]
    last = results[-1][1]
    names = {name: last.get("iou", {}).get(name) for _, result in results for name in result.get("iou", {})}
    return [
        {"class": name}
        | {f"IoU {step}": number(result.get("iou", {}).get(name)) for step, result in results}
        | {score: number(last.get(score, {}).get(name)) for score in ("precision", "recall")}
        for name in _best_first(names)
    ]


def words(key: str) -> str:
    """The last part of a result's key for people: `segmentation.val.multi_scale_crf` → `multi scale crf`."""
    return key.rpartition(".")[2].replace("_", " ")


def ablation_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """One row a variant: mean mIoU over the splits, and each split's with the threshold that it was read at."""
    rows = []
    for found in metrics.get("ablation", {}).get("rows", []):
        row = {"group": str(found["group"])} if "group" in found else {}
        row |= {"variant": str(found.get("name", ABSENT)), "mean mIoU": interval(found, "miou")}
        row |= {"seeds": str(found["seeds"])} if "seeds" in found else {}
        thresholds = found.get("threshold", {})
        for split, miou in found.get("by_split", {}).items():
            threshold = number(thresholds.get(split), digits=2)
            row[str(split)] = number(miou) + (f" at {threshold}" if threshold != ABSENT else "")
        rows.append(row)
    return rows


def ablation_note(metrics: Mapping[str, Any]) -> str:
    """The protocol of the ablation, what its intervals are, and the zero-shot presence mAP on the same images."""
    ablation = metrics.get("ablation", {})
    parts = [protocol_text(ablation["protocol"])] if ablation.get("protocol") else []
    rows = ablation.get("rows", [])
    if any(defined(row.get("std")) for row in rows):
        parts.append(f"± standard deviation over {max(row.get('seeds', 0) for row in rows)} seeds")
    if any(defined(row.get("low")) for row in rows) and "interval" not in ablation.get("protocol", {}):
        parts.append("[ ] 95 % bootstrap interval over images")
    presence = ablation.get("presence_map") or {}
    if presence:
        splits = ", ".join(f"{split} {number(value)}" for split, value in presence.get("by_split", {}).items())
        parts.append(f"zero-shot presence mAP {number(presence.get('mean'))}" + (f" ({splits})" if splits else ""))
    return "; ".join(parts)


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """A protocol in one line; fields that are not part of every protocol come with their names."""
    leading = [str(protocol[field]) for field in ("what", "split") if protocol.get(field)]
    return " · ".join([*leading, *(f"{k}: {_plain(v)}" for k, v in protocol.items() if k not in ("what", "split"))])


def common_protocol(metrics: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The fields of the protocol of the last of `keys` that all of them share."""
    *others, last = (metrics["results"][key].get("protocol", {}) for key in keys)
    return {field: value for field, value in last.items() if all(other.get(field) == value for other in others)}


def headline_keys(metrics: Mapping[str, Any]) -> list[str]:
    """The last result of each family, e.g. the fully refined seeds of `seeds.lvc.train`, in order."""
    return [keys[-1] for keys in families(metrics).values()]


def headline_key(metrics: Mapping[str, Any]) -> str | None:
    """The one result to show first: segmentation of the first split where there is one, else the last seeds."""
    keys = headline_keys(metrics)
    return next((key for key in keys if key.startswith("segmentation.")), keys[-1] if keys else None)


def print_tables(metrics: Mapping[str, Any], console: Console) -> None:
    """Print results, the headline's classes, the ablation, and what was skipped; 100 columns are enough."""
    rows, footnotes = _footnoted([{**row, "mIoU": row["mIoU"].split(" ")[0]} for row in results_rows(metrics)])
    notes = [*footnotes, "means over the classes in the truth", _intervals(metrics)]
    print_rows(console, "Results", rows, notes, PROTOCOL)
    key = headline_key(metrics)
    if key is not None:
        rows = per_class_rows(metrics, key)
        if len(rows) <= TERMINAL_CLASSES:
            print_rows(console, "By class", rows, [protocol_text(metrics["results"][key]["protocol"])])
    _print_ablation(metrics, console)
    for what, reason in metrics.get("skipped", {}).items():
        console.print(Text(f"not scored: {what}: {reason}"))


def _intervals(metrics: Mapping[str, Any]) -> str:
    """The headline results with their intervals, which the table has no room for."""
    found = {key: miou_text(metrics["results"][key]) for key in headline_keys(metrics)}
    shown = [f"{key} {text}" for key, text in found.items() if "[" in text]
    return f"95 % intervals of mIoU over images: {', '.join(shown)}" if shown else ""


def _print_ablation(metrics: Mapping[str, Any], console: Console) -> None:
    """A table a group, without thresholds: with them and the intervals a row would not fit a terminal."""
    rows = ablation_rows(metrics)
    groups = list(dict.fromkeys(row.get("group", "") for row in rows))
    for group in groups:
        short = [
            {column: cell.split(" at ")[0] for column, cell in row.items() if column not in ("group", "seeds")}
            if group
            else row
            for row in rows
            if row.get("group", "") == group
        ]
        notes = [ablation_note(metrics)] if group == groups[-1] else []
        print_rows(console, f"Ablation: {group}" if group else "Ablation", short, notes, ["variant"])


def print_scores(scores: Mapping[str, Any], console: Console) -> None:
    """Print one evaluation's scores (`Scores.to_json()`), class by class."""
    rows = per_class_rows({"results": {"all": scores}}, "all")
    print_rows(console, "By class", rows, [f"mIoU {number(scores['miou'])} over the classes in the truth"])


def _footnoted(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows whose long protocol cells are letters, and what these stand for: a terminal is narrow."""
    long = {row.get(c, "") for row in rows for c in PROTOCOL if c != "what"}
    letters = {cell: f"({chr(ord('a') + i)})" for i, cell in enumerate(sorted(c for c in long if len(c) > FOOTNOTE))}
    short = [{c: letters.get(value, value) if c in PROTOCOL else value for c, value in row.items()} for row in rows]
    return short, [f"{letter} {cell}" for cell, letter in letters.items()]


def _best_first(iou: Mapping[str, Any]) -> list[str]:
    """Class names by IoU, best first, undefined ones last."""
    return sorted(iou, key=lambda name: (not defined(iou[name]), -(iou[name] or 0.0), name))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
