"""`cvat-images`: "CVAT for images 1.1", CVAT's own XML, with one mask for each class of an image.

    annotations.xml    Upload annotations, onto a task with the same images
    labels.json        the task's labels: paste it under Raw

A mask holds run lengths of its box, row by row, beginning with the pixels outside.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.palette import VOC_PALETTE
from excel_core.exports.label_maps import LabelMap

__all__ = ["write_cvat_images"]


def write_cvat_images(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Write annotations.xml and labels.json → how many masks."""
    count = 0
    colours = ["#{:02x}{:02x}{:02x}".format(*VOC_PALETTE[value + 1].tolist()) for value in range(len(class_names))]
    with (folder / "annotations.xml").open("w", encoding="utf-8") as file:
        file.write(
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n{_meta(class_names, colours)}'
        )
        for number, label_map in enumerate(maps):
            height, width = label_map.read(len(class_names)).shape
            name = quoteattr(label_map.file_name or f"{label_map.id}.png")
            file.write(f'<image id="{number}" name={name} width="{width}" height="{height}">\n')
            for class_name, pixels in label_map.segments(class_names):
                file.write(
                    f'<mask label={quoteattr(class_name)} source="auto" occluded="0" {_runs(pixels)} z_order="0"></mask>\n'
                )
                count += 1
            file.write("</image>\n")
        file.write("</annotations>\n")
    labels = [
        {"name": name, "color": colour, "type": "any", "attributes": []}
        for name, colour in zip(class_names, colours, strict=True)
    ]
    (folder / "labels.json").write_text(json.dumps(labels, indent=2, ensure_ascii=False), encoding="utf-8")
    return {"masks": count}


def _meta(class_names: Sequence[str], colours: Sequence[str]) -> str:
    labels = "".join(
        f"<label><name>{escape(name)}</name><color>{colour}</color><type>any</type><attributes></attributes></label>\n"
        for name, colour in zip(class_names, colours, strict=True)
    )
    return f"<meta><task><name>excel</name><mode>annotation</mode><labels>\n{labels}</labels></task></meta>\n"


def _runs(pixels: NDArray[np.bool_]) -> str:
    """pixels (H, W), some inside → the attributes of their box and its run lengths."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    flat = pixels[top : top + height, left : left + width].ravel()
    # A run begins at every change; the first counts what is outside, so that it may be 0.
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(flat, prepend=False)), [flat.size]])
    runs = ", ".join(map(str, np.diff(bounds).tolist()))
    return f'rle="{runs}" left="{left}" top="{top}" width="{width}" height="{height}"'
