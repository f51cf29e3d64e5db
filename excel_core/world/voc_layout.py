"""Scenes written as a data set in VOC layout, which the pipeline then reads like any other.

JPEGImages/<id>.jpg · SegmentationClass/<id>.png (palette PNG, VOC's colours) · Annotations/<id>.xml (class names and
boxes) · ImageSets/Segmentation/<split>.txt. Every file is written to a temporary name and renamed. The split lists
are written last, so that a list never names a picture that is not there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.datasets.palette import save_labels_png
from excel_core.files import written_then_renamed
from excel_core.world.scenes import CLASSES, Scene, render_scene

__all__ = ["scene_id", "write_world"]


def scene_id(seed: int) -> str:
    """The id of scene number `seed`, such as world_000123."""
    return f"world_{seed:06d}"


def write_world(root: Path, splits: Mapping[str, Sequence[int]], size: int) -> None:
    """Write the scenes of `splits` (name → seeds) under `root` in VOC layout, `size` × `size` pixels each. Whoever calls this
    syncs them together."""
    folders = {name: root / name for name in ("JPEGImages", "SegmentationClass", "Annotations")}
    lists = root / "ImageSets" / "Segmentation"
    for folder in (*folders.values(), lists):
        folder.mkdir(parents=True, exist_ok=True)
    all_seeds = {seed for seeds in splits.values() for seed in seeds}
    for seed in sorted(all_seeds):
        name, scene = scene_id(seed), render_scene(seed, size)
        _write_jpeg(folders["JPEGImages"] / f"{name}.jpg", scene.image)
        save_labels_png(folders["SegmentationClass"] / f"{name}.png", scene.mask)
        _write_text(folders["Annotations"] / f"{name}.xml", _annotation(name, scene))
    for split, seeds in splits.items():
        _write_text(lists / f"{split}.txt", "".join(f"{scene_id(seed)}\n" for seed in seeds))


def _annotation(name: str, scene: Scene) -> str:
    """VOC's XML: one object per class, boxed by all its pixels (1-based, inclusive, as VOC's are)."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    size = ElementTree.SubElement(root, "size")
    height, width, depth = scene.image.shape
    for key, value in (("width", width), ("height", height), ("depth", depth)):
        ElementTree.SubElement(size, key).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "1"
    for label in scene.labels:
        rows, columns = np.nonzero(scene.mask == CLASSES.index(label) + 1)
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = label
        box = ElementTree.SubElement(item, "bndbox")
        edges = {"xmin": columns.min(), "ymin": rows.min(), "xmax": columns.max(), "ymax": rows.max()}
        for key, edge in edges.items():
            ElementTree.SubElement(box, key).text = str(int(edge) + 1)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _write_jpeg(path: Path, image: NDArray[np.uint8]) -> None:
    with written_then_renamed(path, sync=False) as temporary:
        # 4:4:4, so that edges keep their colour
        Image.fromarray(image).save(temporary, format="JPEG", quality=95, subsampling=0)


def _write_text(path: Path, text: str) -> None:
    with written_then_renamed(path, sync=False) as temporary:
        temporary.write_text(text, encoding="utf-8")
