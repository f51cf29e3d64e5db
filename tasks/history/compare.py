"""Two runs side by side: what was asked differently, and what came of it, with intervals over the images they share."""

from dataclasses import asdict
from typing import Any

from artifacts.headline import headline_key
from excel_core.errors import SettingError
from excel_core.evaluation.bootstrap import compare_scores, confusions_by_image
from excel_core.evaluation.examples import most_changed_images
from excel_core.files import read_json
from excel_core.stores import read_counts
from tasks.history.changed_settings import spec_differences
from tasks.history.run_record import RunRecord

__all__ = ["compare_runs"]

MAX_IMAGES = 10  # that are shown


def compare_runs(a: RunRecord, b: RunRecord, result: str | None = None) -> dict[str, Any]:
    """Differences B − A of result key `result` (default: the headline of what both have, `artifacts.tables.headline_key`):

    spec: [{field, a, b}]; results: [{key, a, b}]; result; miou and classes: {a, b, difference, low, high} with the 95 %
    interval of the difference over the same resampled images; images: those that changed most. SettingError where the two
    share no result or image.
    """
    metrics = [read_json(record.output("evaluate") / "metrics.json") for record in (a, b)]
    supervision = [scored.get("supervision", "labels") for scored in metrics]
    if supervision[0] != supervision[1]:
        masked = (a if supervision[0] == "masks" else b).title
        raise SettingError(f"run {masked} was trained on true masks, the other on image-level labels: they are not compared")
    shared = [key for key in metrics[0]["results"] if key in metrics[1]["results"]]
    if not shared:
        raise SettingError(f"runs {a.title} and {b.title} share no scored result")
    if result is not None and result not in shared:
        raise SettingError(f"--result {result!r}: both runs have {', '.join(shared)}")
    key = result or headline_key({"results": dict.fromkeys(shared)}) or shared[-1]
    names = list(metrics[0]["results"][key]["iou"])
    if names != list(metrics[1]["results"][key]["iou"]):
        raise SettingError(f"runs {a.title} and {b.title} have other classes")
    return {
        "a": a.title,
        "b": b.title,
        "spec": spec_differences(a.spec, b.spec),
        "results": [{"key": k, **{r: m["results"][k]["miou"] for r, m in zip("ab", metrics, strict=True)}} for k in shared],
        "result": key,
        "protocol": metrics[1]["results"][key]["protocol"],
        **_paired([read_counts(record.output("evaluate") / "confusion.parquet") for record in (a, b)], key, names),
    }


def _paired(counts: list[Any], key: str, names: list[str]) -> dict[str, Any]:
    """Scores of both runs over the images that they share, with intervals over the same resampled images."""
    tables = [table[table["result"] == key] for table in counts]
    images = sorted(set(tables[0]["image"]) & set(tables[1]["image"]))
    if not images:
        raise SettingError(f"the runs share no image of {key}")
    a, b = (confusions_by_image(table, images, len(names)) for table in tables)
    comparison = compare_scores(a, b, names)
    return {
        "images_shared": len(images),
        "miou": asdict(comparison.miou),
        "classes": [{"class": name} | asdict(difference) for name, difference in comparison.classes.items()],
        "images": most_changed_images(images, a, b, len(names), MAX_IMAGES),
    }
