"""The report of a run from a ReportView: index.html, which needs no network and, unless it has many images, no other file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifacts.explorer import write_explorer
from artifacts.gallery import (
    Picture,
    PictureGroup,
    PictureSize,
    ablation_picture,
    confusion_picture,
    curve_picture,
    gallery_groups,
    knowledge_picture,
    loss_picture,
    segmented_pictures,
)
from artifacts.page import Filters, Tile, class_colours, write_page
from artifacts.quality import doubt_rows, quality_rows
from artifacts.rows import Row, duration, number, size
from artifacts.stages import COSTS_NOTE, cost_rows, origin_facts, summary_text
from artifacts.tables import (
    ConfusionCell,
    ablation_note,
    ablation_rows,
    confusion_table,
    curve_note,
    curve_rows,
    headline_key,
    headline_keys,
    largest_confusions,
    mean_score,
    per_class_rows,
    protocol_text,
    results_rows,
)
from artifacts.view import ExploredRun, GalleryItem, Metrics, ReportView, SegmentedItem

__all__ = ["write_report"]

MAX_TABLE_CLASSES = 25  # a matrix of more classes is a picture and a list: nobody reads 6,561 numbers
PICTURES = PictureSize(side=192, quality=72, webp=True)  # of the few images that a page without scripts shows


@dataclass(frozen=True)
class _ClassTable:
    """Result `key` by class, and its protocol."""

    key: str
    note: str
    rows: list[Row]


@dataclass(frozen=True)
class _Confusion:
    """The confusion matrix of result `key`: rows of cells, or a picture and the largest confusions in words."""

    key: str
    names: Sequence[str]
    rows: Sequence[Sequence[ConfusionCell]] = ()
    picture: Picture | None = None
    largest: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True)
class _GalleryEntry:
    """An image with the groups of its first row, image beside refinement, and those of its second."""

    item: GalleryItem
    first: list[PictureGroup]
    second: list[PictureGroup]


@dataclass(frozen=True)
class _SegmentedEntry:
    item: SegmentedItem
    pictures: tuple[Picture, ...]


def write_report(folder: Path, view: ReportView) -> Path:
    """Write `folder`/index.html → its path. Of more images than MAX_INLINE_IMAGES,
    `folder`/images holds the pictures."""
    path = folder / "index.html"
    explored = ExploredRun(view.title, view.class_names, view.explored, view.background_power)
    explorer = write_explorer(folder, explored)
    filters: Filters = {"duration": duration, "size": size, "summary": summary_text, "facts": origin_facts}
    context = {"view": view, "explorer": explorer, **_context(view)}
    write_page(path, "report", context, filters, beside=explorer is not None and explorer.beside)
    return path


def _context(view: ReportView) -> dict[str, object]:
    """What the template shows beside the view itself."""
    metrics = view.metrics
    first = headline_key(metrics)
    # The last step first: segmentation, and of it the headline, then seeds.
    keys = sorted(headline_keys(metrics), key=lambda key: (key != first, not key.startswith("segmentation.")))
    return {
        "tiles": _tiles(metrics, keys),
        "results": results_rows(metrics),
        "by_class": [_class_table(metrics, key) for key in keys],
        "confusions": [_confusion(view, key) for key in keys if key in view.confusion],
        "ablation": ablation_rows(metrics),
        "ablation_note": ablation_note(metrics),
        "ablation_chart": ablation_picture(metrics),
        "skipped": metrics.get("skipped", {}),
        "warnings": metrics.get("warnings", {}),
        "gallery": _gallery(view),
        "segmented": _segmented(view),
        "legend": class_colours(view.class_names),
        "loss_chart": loss_picture(view),
        "quality": quality_rows(view.quality),
        "doubts": doubt_rows(view.doubts),
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


def _tiles(metrics: Metrics, keys: Sequence[str]) -> list[Tile]:
    tiles = []
    for key in keys:
        result = metrics["results"][key]
        low, high = result.get("miou_interval") or (None, None)
        within = f"95 % interval {number(low)} to {number(high)}" if low is not None else ""
        means = ", ".join(f"{name} {number(mean_score(result, name))}" for name in ("precision", "recall"))
        protocol = result.get("protocol", {})
        title = f"{protocol.get('what', key)}, {protocol['split']}" if "split" in protocol else str(protocol.get("what", key))
        conditions = protocol_text({name: value for name, value in protocol.items() if name not in ("what", "split")})
        tiles.append(Tile(title, number(result.get("miou")), within, conditions, means))
    return tiles


def _class_table(metrics: Metrics, key: str) -> _ClassTable:
    note = protocol_text(metrics["results"][key].get("protocol", {}))
    return _ClassTable(key, note, per_class_rows(metrics, key))


def _confusion(view: ReportView, key: str) -> _Confusion:
    counts, names = view.confusion[key], ("background", *view.class_names)
    if len(view.class_names) <= MAX_TABLE_CLASSES:
        return _Confusion(key, names, rows=confusion_table(counts))
    return _Confusion(key, names, picture=confusion_picture(counts, names, key), largest=largest_confusions(counts, names))


def _gallery(view: ReportView) -> list[_GalleryEntry]:
    entries = []
    for item in view.gallery:
        image, *groups = gallery_groups(item, view.class_names, PICTURES)
        steps = [group for group in groups if group.steps]
        other_groups = [group for group in groups if not group.steps]
        entries.append(_GalleryEntry(item, [image, *steps], other_groups))
    return entries


def _segmented(view: ReportView) -> list[_SegmentedEntry]:
    return [_SegmentedEntry(item, segmented_pictures(item, view.class_names, PICTURES)) for item in view.segmented]
