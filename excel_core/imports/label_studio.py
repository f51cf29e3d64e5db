"""Label Studio's JSON: choices are labels of an image; brushes, polygons and ellipses make its label map.

    [{data: {image}, annotations: [{result: [{type, original_width, original_height, value}]}], predictions: […]}]

Coordinates are in percent of width and height. Of several annotations of a task, the one that is marked as ground truth counts,
else the one that was changed last.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from excel_core.errors import DataError
from excel_core.imports.annotated import Annotated, Draw, Shape, as_label
from excel_core.imports.shapes import brush, ellipse, polygon

__all__ = ["read_label_studio"]

IMAGE = "image"  # the usual field of `data`
KINDS = {
    "brush": "brush",
    "polygon": "polygon",
    "ellipse": "ellipse",
    "rectangle": "box",
    "keypoint": "point",
    "bitmask": "bitmask",
}


def read_label_studio(path: Path, predictions: bool = False) -> Iterator[Annotated]:
    """Every task of the file. `predictions`: a task without annotation has its first prediction. DataError where it is no JSON
    of tasks."""
    try:
        tasks = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(tasks, list) or not tasks:
        raise DataError(f"{path}: must be a list of tasks; export the project as 'JSON'")
    for number, task in enumerate(tasks, start=1):
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise DataError(f"{path}: task {number} has no 'data'; export the project as 'JSON', not as 'JSON-MIN'")
        yield _task(task, f"{path}: task {number}", predictions)


def _task(task: dict[str, Any], where: str, predictions: bool) -> Annotated:
    name = _image_name(task["data"], where)
    results = _results(task, predictions)
    if isinstance(results, str):
        return Annotated(name, left_out=results)
    try:
        return _annotated(name, results)
    except KeyError as error:
        return Annotated(name, left_out=f"its annotation lacks {error.args[0]!r}")
    except (TypeError, ValueError, AttributeError, DataError) as error:
        return Annotated(name, left_out=f"its annotation is damaged: {error}")


def _image_name(data: dict[str, Any], where: str) -> str:
    """The image's path, out of an address such as /data/local-files/?d=images/a.jpg."""
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get(IMAGE) if isinstance(data.get(IMAGE), str) else texts[0] if len(texts) == 1 else ""
    url = urlsplit(address or "")
    name = parse_qs(url.query).get("d", [unquote(url.path)])[0].replace("\\", "/")  # as Label Studio on Windows has it
    if not name:
        raise DataError(f"{where}: 'data' names no {IMAGE!r}")
    return name


def _results(task: dict[str, Any], predictions: bool) -> list[dict[str, Any]] | str:
    """The results that count, or why there are none."""
    every = [entry for entry in task.get("annotations") or () if isinstance(entry, dict)]
    annotations = [entry for entry in every if not entry.get("was_cancelled")]
    # Stable: where nothing tells them apart, the last in the file is the last.
    annotations.sort(key=lambda entry: (bool(entry.get("ground_truth")), str(entry.get("updated_at") or "")))
    if not annotations and predictions:
        annotations = [entry for entry in task.get("predictions") or () if isinstance(entry, dict)][:1]
    if annotations:
        return list(annotations[-1].get("result") or ())
    if every:
        return "was skipped in Label Studio"
    return "has no annotation" + (" and no prediction" if predictions else "; --predictions takes pre-annotations as they are")


def _annotated(name: str, results: list[dict[str, Any]]) -> Annotated:
    labels: list[str] = []
    shapes: list[Shape] = []
    no_mask = ""
    sizes = {(entry["original_height"], entry["original_width"]) for entry in results if "original_width" in entry}
    if len(sizes) > 1 or not all(type(side) is int and side > 0 for size in sizes for side in size):
        raise DataError("its results are of images of several sizes, or of none")
    height, width = next(iter(sizes), (0, 0))
    labels_of = _labels_by_region(results)
    for entry in results:
        kind, value = str(entry.get("type")).removesuffix("labels"), entry.get("value") or {}
        if kind == "choices" and "x" not in value and "rle" not in value and "points" not in value:  # of the image
            labels += [as_label(str(choice)) for choice in value["choices"]]
        if kind not in KINDS:
            continue
        own_labels = [as_label(str(label)) for label in value.get(entry["type"]) or labels_of.get(entry.get("id")) or []]
        if len(own_labels) != 1:
            labels += own_labels
            no_mask = no_mask or f"has a {KINDS[kind]} of {len(own_labels) or 'no'} labels"
            continue
        if entry.get("image_rotation"):
            no_mask = no_mask or "was turned in Label Studio"
        shapes.append(Shape(own_labels[0], KINDS[kind], _draw(kind, value, height, width)))
    return Annotated(name, height, width, tuple(labels), tuple(shapes), no_mask=no_mask)


def _labels_by_region(results: list[dict[str, Any]]) -> dict[Any, list[str]]:
    """Labels that were given to a region apart from its shape, by the region's id."""
    return {entry["id"]: entry["value"]["labels"] for entry in results if entry.get("type") == "labels" and "id" in entry}


def _draw(kind: str, value: dict[str, Any], height: int, width: int) -> Draw | None:
    if kind == "brush":
        return brush(value["rle"])
    if kind == "polygon":
        return polygon([float(part) for x, y in value["points"] for part in (x * width / 100, y * height / 100)])
    if kind == "ellipse":
        x, y = value["x"] * width / 100, value["y"] * height / 100
        radii = value["radiusX"] * width / 100, value["radiusY"] * height / 100
        return ellipse(x, y, *radii, float(value.get("rotation", 0)))
    return None
