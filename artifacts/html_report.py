"""The report: one self-contained index.html that needs no network, from a ReportView."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from artifacts.charts import losses_png
from artifacts.gallery import Picture, PictureGroup, PictureSize, gallery_groups, segmented_pictures
from artifacts.tables import (
    ablation_note,
    ablation_rows,
    headline_key,
    headline_keys,
    mean_score,
    number,
    per_class_rows,
    protocol_text,
    results_rows,
)
from artifacts.view import ReportView, StageRow
from excel_core.palette import VOC_PALETTE
from excel_core.stores import written_then_renamed

__all__ = ["write_report"]

FEW, SMALL = 12, PictureSize(side=192, quality=72)  # more images than FEW are shown smaller
SUMMARY_PAIRS = 6


@dataclass(frozen=True)
class _Shown:
    """One image of the gallery or of the segmented examples, ready to show."""

    id: str
    labels: tuple[str, ...]
    groups: tuple[PictureGroup, ...]


def write_report(folder: Path, view: ReportView) -> Path:
    """Write `folder`/index.html → its path. About 2 MB for 8 gallery images."""
    # Autoescape for every name, whatever its ending: ids and class names come from a person's files.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": _duration, "size": _size, "summary": _summary}
    page = environment.get_template("report.html.j2").render(view=view, **_context(view))
    path = folder / "index.html"
    with written_then_renamed(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _context(view: ReportView) -> dict[str, Any]:
    """What the template shows beside the view itself."""
    metrics = view.metrics
    key = headline_key(metrics)
    others = [other for other in headline_keys(metrics) if other != key]
    return {
        "tiles": _tiles(metrics),
        "results": results_rows(metrics),
        "by_class": [_class_table(metrics, each) for each in ([key] if key else []) + others],
        "ablation": ablation_rows(metrics),
        "ablation_note": ablation_note(metrics),
        "skipped": metrics.get("skipped", {}),
        "gallery": _gallery(view),
        "segmented": _segmented(view),
        "legend": _legend(view),
        "loss_chart": _loss_chart(view),
        "stages": view.stages,
        "seconds": sum(row.seconds for row in view.stages),
        "bytes": sum(row.bytes for row in view.stages),
        "spec": json.dumps(view.spec, indent=2, ensure_ascii=False, default=str),
    }


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The headline numbers, each with its protocol."""
    tiles = []
    for key in headline_keys(metrics):
        result = metrics["results"][key]
        means = (f"{name} {number(mean_score(result, name))}" for name in ("precision", "recall"))
        note = protocol_text(result.get("protocol", {}))
        tiles.append({"key": key, "miou": number(result.get("miou")), "means": ", ".join(means), "note": note})
    return tiles


def _class_table(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    note = protocol_text(metrics["results"][key].get("protocol", {}))
    return {"key": key, "note": note, "rows": per_class_rows(metrics, key)}


def _gallery(view: ReportView) -> list[_Shown]:
    size = PictureSize() if len(view.gallery) <= FEW else SMALL
    return [_Shown(i.id, i.labels, tuple(gallery_groups(i, view.class_names, size))) for i in view.gallery]


def _segmented(view: ReportView) -> list[_Shown]:
    size = PictureSize() if len(view.segmented) <= FEW else SMALL
    groups = ((item.id, segmented_pictures(item, view.class_names, size)) for item in view.segmented)
    return [_Shown(image, (), (PictureGroup("", pictures),)) for image, pictures in groups]


def _legend(view: ReportView) -> list[dict[str, Any]]:
    """Number, name and CSS colour of every class."""
    rows = enumerate(view.class_names, start=1)
    return [{"value": i, "name": name, "colour": "rgb({}, {}, {})".format(*VOC_PALETTE[i])} for i, name in rows]


def _loss_chart(view: ReportView) -> Picture | None:
    if view.losses is None or view.losses.empty:
        return None
    first, last = view.losses["loss"].iloc[0], view.losses["loss"].iloc[-1]
    uri = "data:image/png;base64," + base64.b64encode(losses_png(view.losses)).decode("ascii")
    words = f"{len(view.losses)} iterations; the loss goes from {number(first)} to {number(last)}"
    return Picture(uri, f"loss curve over {words}", words)


def _duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(count: int) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _summary(row: StageRow) -> str:
    """A stage's own words, the first few pairs of them."""
    pairs = [f"{key} {_value(value)}" for key, value in row.summary.items()]
    more = [f"{len(pairs) - SUMMARY_PAIRS} more"] if len(pairs) > SUMMARY_PAIRS else []
    return " · ".join(pairs[:SUMMARY_PAIRS] + more)


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
