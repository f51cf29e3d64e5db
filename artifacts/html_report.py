"""The report: one self-contained index.html that needs no network, from a ReportView."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from artifacts.chart_pictures import ablation_picture, confusion_picture, curve_picture, knowledge_picture, loss_picture
from artifacts.confusion import TABLE_CLASSES, confusion_table, largest_confusions
from artifacts.costs import COSTS_NOTE, cost_rows
from artifacts.curve_rows import curve_note, curve_rows
from artifacts.gallery import PictureSize, gallery_groups, segmented_pictures
from artifacts.provenance import facts, summary_text
from artifacts.rows import duration, number, size
from artifacts.tables import (
    ablation_note,
    ablation_rows,
    headline_key,
    headline_keys,
    mean_score,
    per_class_rows,
    protocol_text,
    results_rows,
)
from artifacts.view import ReportView
from excel_core.datasets.palette import VOC_PALETTE
from excel_core.files import written_then_renamed

__all__ = ["write_report"]

FOLDER = Path(__file__).parent
FEW, SMALL = 12, PictureSize(side=192, quality=72)  # more images than FEW are shown smaller


def write_report(folder: Path, view: ReportView) -> Path:
    """Write `folder`/index.html → its path. About 2 MB for 8 gallery images."""
    # Autoescape for every name, whatever its ending: ids and class names come from a person's files.
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "size": size, "summary": summary_text, "facts": facts}
    page = environment.get_template("report.html.j2").render(view=view, **_context(view))
    path = folder / "index.html"
    with written_then_renamed(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _context(view: ReportView) -> dict[str, Any]:
    """What the template shows beside the view itself."""
    metrics = view.metrics
    first = headline_key(metrics)
    keys = sorted(headline_keys(metrics), key=lambda key: key != first)  # the first one to the front, the rest as they are
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    return {
        "script": script,
        # The page's own script may run and nothing else, whatever a name in it looks like.
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "tiles": _tiles(metrics),
        "results": results_rows(metrics),
        "by_class": [_class_table(metrics, key) for key in keys],
        "confusions": [_confusion(view, key) for key in keys if key in view.confusion],
        "ablation": ablation_rows(metrics),
        "ablation_note": ablation_note(metrics),
        "ablation_chart": ablation_picture(metrics),
        "skipped": metrics.get("skipped", {}),
        "gallery": _gallery(view),
        "segmented": _segmented(view),
        "legend": _legend(view),
        "loss_chart": loss_picture(view),
        "curve": curve_rows(view.curve),
        "curve_note": curve_note(view.curve),
        "curve_chart": curve_picture(view.curve),
        "knowledge_chart": knowledge_picture(view),
        "seconds": sum(row.seconds for row in view.stages),
        "costs": cost_rows(view.stages),
        "costs_note": COSTS_NOTE,
        "bytes": sum(row.bytes for row in view.stages),
        "spec": json.dumps(view.spec, indent=2, ensure_ascii=False, default=str),
    }


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The headline numbers, each with its protocol."""
    tiles = []
    for key in headline_keys(metrics):
        result = metrics["results"][key]
        low, high = result.get("miou_interval") or (None, None)
        within = f"95 % interval {number(low)} to {number(high)}" if low is not None else ""
        means = ", ".join(f"{name} {number(mean_score(result, name))}" for name in ("precision", "recall"))
        note = protocol_text(result.get("protocol", {}))
        tiles.append({"miou": number(result.get("miou")), "interval": within, "means": means, "note": note})
    return tiles


def _class_table(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    note = protocol_text(metrics["results"][key].get("protocol", {}))
    return {"key": key, "note": note, "rows": per_class_rows(metrics, key)}


def _confusion(view: ReportView, key: str) -> dict[str, Any]:
    """A table of up to TABLE_CLASSES classes, else a picture and the largest confusions in words."""
    counts, names = view.confusion[key], ("background", *view.class_names)
    shown: dict[str, Any] = {"key": key, "names": names, "rows": [], "picture": None, "largest": []}
    if len(view.class_names) <= TABLE_CLASSES:
        return shown | {"rows": confusion_table(counts)}
    return shown | {"picture": confusion_picture(counts, names, key), "largest": largest_confusions(counts, names)}


def _gallery(view: ReportView) -> list[dict[str, Any]]:
    """Each image with the groups that stand in its first row, image beside refinement, and those in its second."""
    pictures, shown = PictureSize() if len(view.gallery) <= FEW else SMALL, []
    for item in view.gallery:
        image, *groups = gallery_groups(item, view.class_names, pictures)
        steps = [group for group in groups if group.steps]
        others = [group for group in groups if not group.steps]
        shown.append({"item": item, "first": [image, *steps], "second": others})
    return shown


def _segmented(view: ReportView) -> list[dict[str, Any]]:
    pictures = PictureSize() if len(view.segmented) <= FEW else SMALL
    return [{"item": item, "pictures": segmented_pictures(item, view.class_names, pictures)} for item in view.segmented]


def _legend(view: ReportView) -> list[dict[str, Any]]:
    """Number, name and CSS colour of every class."""
    rows = enumerate(view.class_names, start=1)
    return [{"value": i, "name": name, "colour": "rgb({}, {}, {})".format(*VOC_PALETTE[i])} for i, name in rows]
