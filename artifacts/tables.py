"""Scores as tables: metrics.json, curve.json and confusion matrices as rows of text, and in the terminal.

Every row of scores carries its protocol; the ablation and the curve have one for all their rows, see `ablation_note` and
`curve_note`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from artifacts.headline import families, headline_key, headline_keys
from artifacts.rows import ABSENT, Row, defined, interval, number, print_rows
from artifacts.view import Counts, Curve, Metrics

__all__ = [
    "ConfusionCell", "ablation_note", "ablation_rows", "common_protocol", "confusion_shares", "confusion_table",
    "curve_note", "curve_rows", "families", "family_rows", "footnoted", "headline_key", "headline_keys",
    "largest_confusions", "mean_score", "miou_text", "per_class_rows", "print_scores", "print_tables", "protocol_text",
    "result_words", "results_rows", "shared_protocol",
]  # fmt: skip

# Field -> column; scores come early, for who sees the first columns only: on a phone, or in the Prefect UI.
RESULT_COLUMNS = {
    "what": "what", "split": "split", "refinement": "refinement", "mIoU": "mIoU", "precision": "precision", "recall": "recall",
    "scales": "scales", "labels": "labels used", "images": "images",
}  # fmt: skip
PROTOCOL_COLUMNS = ("what", "split", "refinement", "scales", "labels used")
MAX_CELL_LENGTH = 15  # a longer protocol cell becomes a footnote in the terminal
MAX_PRINTED_CLASSES = 25  # the per-class table is printed up to so many rows
MAX_LISTED_CONFUSIONS = 20


def mean_score(result: Mapping[str, Any], name: str) -> float | None:
    """Mean of a per-class score over the classes that occur in the truth (those with a recall) where it is defined."""
    recall = result.get("recall", {})
    scores = [value for key, value in result.get(name, {}).items() if defined(value) and defined(recall.get(key))]
    return sum(scores) / len(scores) if scores else None


def miou_text(result: Mapping[str, Any]) -> str:
    """A result's mIoU with its 95 % bootstrap interval over images, where one was made."""
    low, high = result.get("miou_interval") or (None, None)
    return interval({"miou": result.get("miou"), "low": low, "high": high}, "miou")


def results_rows(metrics: Metrics) -> list[Row]:
    """One row per result: mIoU, mean precision and mean recall amid its protocol and number of images."""
    rows = []
    for result in metrics.get("results", {}).values():
        protocol = result.get("protocol", {}) | {"mIoU": miou_text(result)}
        protocol |= {name: number(mean_score(result, name)) for name in ("precision", "recall")}
        rows.append({column: str(protocol.get(field, ABSENT)) for field, column in RESULT_COLUMNS.items()})
    return rows


def per_class_rows(metrics: Metrics, key: str) -> list[Row]:
    """One row per class of result `key`, best IoU first, undefined ones last; print its protocol beside it."""
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


def family_rows(metrics: Metrics, keys: Sequence[str]) -> list[Row]:
    """One row per class over the results `keys` of one family: the IoU of each, precision and recall of the last; best
    last IoU first."""
    results = [(result_words(key), metrics["results"][key]) for key in keys]
    last_result = results[-1][1]
    names = {name: last_result.get("iou", {}).get(name) for _, result in results for name in result.get("iou", {})}
    return [
        {"class": name}
        | {f"IoU {step}": number(result.get("iou", {}).get(name)) for step, result in results}
        | {score: number(last_result.get(score, {}).get(name)) for score in ("precision", "recall")}
        for name in _best_first(names)
    ]


def result_words(key: str) -> str:
    """The last part of a result's key for people: `segmentation.val.multi_scale_crf` → `multi scale crf`."""
    return key.rpartition(".")[2].replace("_", " ")


def ablation_rows(metrics: Metrics) -> list[Row]:
    """One row per variant: mean mIoU over the splits, and each split's with the threshold that it was read at."""
    rows = []
    for variant in metrics.get("ablation", {}).get("rows", []):
        row = {"group": str(variant["group"])} if "group" in variant else {}
        row |= {"variant": str(variant.get("name", ABSENT)), "mean mIoU": interval(variant, "miou")}
        if "difference" in variant:
            row["difference"] = interval(variant["difference"], "difference", sign="+")
        row |= {"seeds": str(variant["seeds"])} if "seeds" in variant else {}
        thresholds = variant.get("threshold", {})
        for split, miou in variant.get("by_split", {}).items():
            threshold = number(thresholds.get(split), digits=2)
            row[str(split)] = number(miou) + (f" at {threshold}" if threshold != ABSENT else "")
        rows.append(row)
    return rows


def ablation_note(metrics: Metrics) -> str:
    """The protocol of the ablation, what its intervals are, and the zero-shot presence mAP on the same images."""
    ablation = metrics.get("ablation", {})
    remarks = [protocol_text(ablation["protocol"])] if ablation.get("protocol") else []
    rows = ablation.get("rows", [])
    if any(defined(row.get("std")) for row in rows):
        remarks.append(f"± standard deviation over {max(row.get('seeds', 0) for row in rows)} seeds")
    if any(defined(row.get("low")) for row in rows) and "interval" not in ablation.get("protocol", {}):
        remarks.append("[ ] 95 % bootstrap interval over images")
    presence = ablation.get("presence_map") or {}
    if presence:
        splits = ", ".join(f"{split} {number(value)}" for split, value in presence.get("by_split", {}).items())
        remarks.append(f"zero-shot presence mAP {number(presence.get('mean'))}" + (f" ({splits})" if splits else ""))
    ranking = ablation.get("ranking") or {}
    if ranking:
        splits = ", ".join(f"{split} {number(value)}" for split, value in ranking["spearman"].items())
        remarks.append(f"{ranking['what']}: Spearman {splits}")
    return "; ".join(remarks)


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """A protocol in one line; fields that are not part of every protocol come with their names."""
    # What was scored and on which split come first, without their names.
    leading = [str(protocol[field]) for field in ("what", "split") if protocol.get(field)]
    return " · ".join([*leading, *(f"{k}: {_plain(v)}" for k, v in protocol.items() if k not in ("what", "split"))])


def common_protocol(metrics: Metrics, keys: Sequence[str]) -> dict[str, Any]:
    """The fields of the protocol of the last of `keys` that all of them share."""
    return shared_protocol([metrics["results"][key].get("protocol", {}) for key in keys])


def shared_protocol(protocols: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields in which all protocols agree, in the order of the last one's."""
    last_protocol = protocols[-1] if protocols else {}
    return {field: value for field, value in last_protocol.items() if all(other.get(field) == value for other in protocols)}


def print_tables(metrics: Metrics, console: Console) -> None:
    """Print results, the headline's classes, the ablation, what was skipped, and which masks may be wrong; 100 columns are
    enough."""
    # With their intervals the rows would not fit; these follow as a note.
    rows, footnotes = footnoted([{**row, "mIoU": row["mIoU"].split(" ")[0]} for row in results_rows(metrics)])
    notes = [*footnotes, "means over the classes in the truth", _intervals(metrics)]
    print_rows(console, "Results", rows, notes, PROTOCOL_COLUMNS)
    key = headline_key(metrics)
    if key is not None:
        rows = per_class_rows(metrics, key)
        if len(rows) <= MAX_PRINTED_CLASSES:
            print_rows(console, "By class", rows, [protocol_text(metrics["results"][key]["protocol"])])
    _print_ablation(metrics, console)
    for scored, reason in metrics.get("skipped", {}).items():
        console.print(Text(f"not scored: {scored}: {reason}"))
    for masks, reason in metrics.get("warnings", {}).items():
        console.print(Text(f"warning: {masks} {reason}"))


def _intervals(metrics: Metrics) -> str:
    """The headline results with their intervals, which the table has no room for."""
    scores = {key: miou_text(metrics["results"][key]) for key in headline_keys(metrics)}
    with_interval = [f"{key} {text}" for key, text in scores.items() if "[" in text]
    return f"95 % intervals of mIoU over images: {', '.join(with_interval)}" if with_interval else ""


def _print_ablation(metrics: Metrics, console: Console) -> None:
    """A table per group, without thresholds: with them and the intervals a row would not fit a terminal."""
    rows = ablation_rows(metrics)
    groups = list(dict.fromkeys(row.get("group", "") for row in rows))
    for group in groups:
        short = [row for row in rows if row.get("group", "") == group]
        if group:
            short = [{c: cell.split(" at ")[0] for c, cell in row.items() if c not in ("group", "seeds")} for row in short]
        notes = [ablation_note(metrics)] if group == groups[-1] else []
        print_rows(console, f"Ablation: {group}" if group else "Ablation", short, notes, ["variant"])


def print_scores(scores: Mapping[str, Any], console: Console) -> None:
    """Print one evaluation's scores (`Scores.to_json()`), class by class."""
    rows = per_class_rows({"results": {"all": scores}}, "all")
    print_rows(console, "By class", rows, [f"mIoU {number(scores['miou'])} over the classes in the truth"])


def footnoted(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """Rows with letters in place of long protocol cells, and a note per letter: a terminal is narrow, and so is a phone."""
    cells = {row.get(column, "") for row in rows for column in PROTOCOL_COLUMNS if column != "what"}
    long_cells = sorted(cell for cell in cells if len(cell) > MAX_CELL_LENGTH)
    letters = {cell: f"({chr(ord('a') + i)})" for i, cell in enumerate(long_cells)}
    short = [{c: letters.get(cell, cell) if c in PROTOCOL_COLUMNS else cell for c, cell in row.items()} for row in rows]
    return short, [f"{letter} {cell}" for cell, letter in letters.items()]


def _best_first(iou: Mapping[str, Any]) -> list[str]:
    """Class names by IoU, best first, undefined ones last."""
    return sorted(iou, key=lambda name: (not defined(iou[name]), -(iou[name] or 0.0), name))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)


def curve_rows(curve: Curve) -> list[Row]:
    """One row per split and iteration; columns of published figures where there are any."""
    published = any(point["published"] for point in curve.get("rows", []))
    rows = []
    for point in curve.get("rows", []):
        row = {"split": str(point["split"]), "iteration": f"{point['iteration']:,}"}
        for kind in ("pseudo_labels", "segmentation"):
            column = kind.replace("_", " ")
            row[column] = number(point[kind])
            if published:
                row[f"{column}, published"] = number((point["published"] or {}).get(kind))
        rows.append(row)
    return rows


def curve_note(curve: Curve) -> str:
    """The protocol of all rows, and what was not scored."""
    skipped = [f"not scored: {images}: {reason}" for images, reason in curve.get("skipped", {}).items()]
    return "; ".join([protocol_text(curve["protocol"]), *skipped]) if curve.get("protocol") else ""


@dataclass(frozen=True)
class ConfusionCell:
    """One share of a row in [0, 1], and its text in per cent; None where the class is not in the truth."""

    share: float | None
    text: str


def confusion_shares(counts: Counts) -> NDArray[np.float64]:
    """counts (C+1, C+1), rows truth → each row over its sum; NaN in rows without pixels."""
    total = counts.sum(axis=1, keepdims=True)
    # `out` holds NaN where `where` is false: numpy leaves those elements alone.
    shares: NDArray[np.float64] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def confusion_table(counts: Counts) -> list[list[ConfusionCell]]:
    """counts (C+1, C+1), rows truth → rows of cells; the shares of a row sum to 1."""
    return [
        [ConfusionCell(None, ABSENT) if np.isnan(share) else ConfusionCell(float(share), _percent(share)) for share in row]
        for row in confusion_shares(counts)
    ]


def largest_confusions(
    counts: Counts, names: Sequence[str], max_count: int = MAX_LISTED_CONFUSIONS
) -> list[tuple[str, str, str]]:
    """(truth, predicted, per cent of the truth's pixels) of the largest shares off the diagonal, largest first."""
    wrong = np.nan_to_num(confusion_shares(counts))
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:max_count]
    pairs = [divmod(int(index), len(wrong)) for index in order if wrong.flat[index] > 0]
    return [(names[truth], names[predicted], f"{_percent(wrong[truth, predicted])} %") for truth, predicted in pairs]


def _percent(share: float) -> str:
    """Whole per cent; a trace is not written as 0, nor nearly all as 100."""
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"
