"""Charts with the words that stand for them, for the page and the Prefect artifacts alike; None where there is no data."""

from collections.abc import Mapping, Sequence
from typing import Any

from artifacts.ablation_chart import ablation_png
from artifacts.charts import losses_png
from artifacts.confusion import Counts, confusion_png, largest_confusions
from artifacts.curve_chart import curve_png
from artifacts.gallery import Picture
from artifacts.knowledge_chart import knowledge_png
from artifacts.pictures import png_data_uri
from artifacts.rows import defined, number
from artifacts.view import ReportView

__all__ = ["ablation_picture", "confusion_picture", "curve_picture", "knowledge_picture", "loss_picture"]


def loss_picture(view: ReportView) -> Picture | None:
    """The loss curve of training."""
    if view.losses is None or view.losses.empty:
        return None
    first, last = view.losses["loss"].iloc[0], view.losses["loss"].iloc[-1]
    words = f"{len(view.losses)} iterations; the loss goes from {number(first)} to {number(last)}"
    return Picture(png_data_uri(losses_png(view.losses)), f"loss curve over {words}", words)


def curve_picture(curve: Mapping[str, Any]) -> Picture | None:
    """Scores of the segmenters that were kept during training (curve.json)."""
    if not curve.get("rows"):
        return None
    first, last = (min(curve["rows"], key=_iteration), max(curve["rows"], key=_iteration))
    words = f"segmentation on {last['split']} goes from mIoU {number(first['segmentation'])} at iteration "
    words += f"{first['iteration']:,} to {number(last['segmentation'])} at {last['iteration']:,}"
    return Picture(png_data_uri(curve_png(curve)), f"learning curve: {words}", words)


def _iteration(row: Mapping[str, Any]) -> int:
    return int(row["iteration"])


def ablation_picture(metrics: Mapping[str, Any]) -> Picture | None:
    """The ablation's variants as dots with intervals."""
    rows = [row for row in metrics.get("ablation", {}).get("rows", []) if defined(row.get("miou"))]
    if not rows:
        return None
    best = max(rows, key=lambda row: row["miou"])
    words = f"{len(rows)} variants; the best is {best.get('name')} with mIoU {number(best['miou'])}"
    return Picture(png_data_uri(ablation_png(metrics)), f"ablation as dots with intervals: {words}", words)


def knowledge_picture(view: ReportView) -> Picture | None:
    """The map of descriptions, attributes and classes."""
    found = view.knowledge_map
    if found is None:
        return None
    counts = f"{len(found.classes)} classes, {len(found.descriptions)} descriptions, {len(found.attributes)} attributes"
    words = f"{counts}; two components hold {100 * sum(found.explained):.0f} % of the descriptions' variance"
    return Picture(png_data_uri(knowledge_png(found, view.class_names)), f"map of the knowledge base: {words}", words)


def confusion_picture(counts: Counts, names: Sequence[str], key: str) -> Picture:
    """A confusion matrix of result `key` that is too large for a table."""
    worst = [f"{truth} taken for {predicted} {share}" for truth, predicted, share in largest_confusions(counts, names, 3)]
    alt = f"confusion matrix of {key}, {len(names)} classes; largest confusions: {'; '.join(worst) or 'none'}"
    return Picture(png_data_uri(confusion_png(counts, names)), alt, f"{len(names)} classes")
