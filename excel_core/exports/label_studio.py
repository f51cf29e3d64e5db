"""`label-studio` and `label-studio-polygons`: label maps as Label Studio's pre-annotations, with the photos.

    tasks.json          [{data: {image}, predictions: [{result: […]}]}]; Import
    label_config.xml    the labelling interface: a brush and polygons, with the classes; Settings → Labeling Interface
    images/ID.jpg       the photos, as local files: LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is the exported folder

A brush result holds all pixels of a class. A polygon result is one connected region, in percent of width and height; a bridge
without width leads to each of its holes.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.palette import VOC_PALETTE
from excel_core.exports.brush_runs import encode_brush
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.outlines import one_ring, regions

__all__ = ["write_label_studio", "write_label_studio_polygons"]

Values = list[dict[str, Any]]  # `value` of each result of a class
MODEL = "excel"  # `model_version`, by which Label Studio groups predictions


def write_label_studio(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Write tasks.json with a brush mask for each class of an image → how many results."""
    return _write(folder, class_names, maps, "brush", _brush)


def write_label_studio_polygons(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Write tasks.json with a polygon for each connected region → how many results."""
    return _write(folder, class_names, maps, "polygon", _polygons)


def _brush(pixels: NDArray[np.bool_]) -> Values:
    return [{"format": "rle", "rle": encode_brush(pixels)}]


def _polygons(pixels: NDArray[np.bool_]) -> Values:
    height, width = pixels.shape
    percent = 100 / np.array([width, height])
    return [{"closed": True, "points": (one_ring(region) * percent).tolist()} for region in regions(pixels)]


def _write(
    folder: Path,
    class_names: Sequence[str],
    maps: Iterable[LabelMap],
    tool: str,
    values_of: Callable[[NDArray[np.bool_]], Values],
) -> dict[str, Any]:
    """`tool`: the control's name, and with `labels` the type of its results."""
    count = 0
    with (folder / "tasks.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for position, label_map in enumerate(maps):
            results = _results(label_map, class_names, tool, values_of)
            image = f"/data/local-files/?d=images/{quote(label_map.file_name)}"
            task = {"data": {"image": image}, "predictions": [{"model_version": MODEL, "result": results}]}
            file.write((",\n" if position else "\n") + json.dumps(task, ensure_ascii=False))
            count += len(results)
        file.write("\n]\n")
    (folder / "label_config.xml").write_text(_config(class_names), encoding="utf-8")
    return {"results": count}


def _results(
    label_map: LabelMap, class_names: Sequence[str], tool: str, values_of: Callable[[NDArray[np.bool_]], Values]
) -> Values:
    height, width = label_map.read(len(class_names)).shape
    results: Values = []
    for name, pixels in label_map.segments(class_names):
        for value in values_of(pixels):
            results.append(
                {
                    "id": f"{tool}{len(results) + 1}",
                    "from_name": tool,
                    "to_name": "image",
                    "type": f"{tool}labels",
                    "original_width": width,
                    "original_height": height,
                    "image_rotation": 0,
                    "value": value | {f"{tool}labels": [name]},
                }
            )
    return results


def _config(class_names: Sequence[str]) -> str:
    labels = ""
    for value, name in enumerate(class_names, start=1):
        colour = "#{:02x}{:02x}{:02x}".format(*VOC_PALETTE[value].tolist())
        labels += f'    <Label value={quoteattr(name)} background="{colour}"/>\n'
    tools = "".join(
        f'  <{tag} name="{name}" toName="image">\n{labels}  </{tag}>\n'
        for tag, name in (("BrushLabels", "brush"), ("PolygonLabels", "polygon"))
    )
    return f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{tools}</View>\n'
