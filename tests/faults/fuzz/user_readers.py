"""Readers of what a user gives: classes, texts, settings, labels, masks and photos."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.fuzz.reader import CLASSES, JSON_WORDS, Reader, files_of, json_of

__all__ = ["USER_READERS"]

TEXTS = {name: [f"a clean origami {name}. it has part {i}." for i in range(3)] for name in CLASSES}
YAML = b"""name: mine
template: "a photo of a {}."
classes:
  - {name: cat, synonyms: cat}
  - {name: dog, synonyms: "dog,puppy", about: "an animal"}
  - name: traffic light
    synonyms: 'traffic light'
background: [sky, "ground", wall]
"""
XML = b"""<?xml version="1.0"?><annotation><size><width>9</width><height>9</height></size>
<object><name>cat</name><difficult>0</difficult><part><name>head</name></part></object><object><name>dog</name></object></annotation>
"""
COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "height": 8, "width": 9},
        {"id": 2, "file_name": "b.jpg", "height": 8, "width": 9},
    ],
    "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6.5]]},
        {"id": 2, "image_id": 1, "category_id": 2, "iscrowd": 1, "segmentation": {"counts": [10, 20, 42], "size": [8, 9]}},
        {"id": 3, "image_id": 1, "category_id": 2, "iscrowd": 1, "segmentation": {"counts": "T42jY>", "size": [8, 9]}},
    ],
}
SETTINGS = b"""train.iterations=4
cams.calibration.depth=5
predict.scales=[0.7, 1.0]
dataset.prompts=world
clip.model=excel-tiny
describe.base_url=http://127.0.0.1:1/v1
refine.par.iterations=4
knowledge.keep=null
report.gallery_images=2"""
INSTRUCTION = b"Write {n} descriptions of {class}{about}. Form: `{beginning}...`. Not: {others}. A brace: {{ }}\n"
EDITS = {
    "train": {"iterations": 4, "segmenter": {"width": 16}},
    "predict": {"scales": [0.7, 1.0]},
    "clip": {"model": "excel-tiny"},
}
REPLY = b'```json\n{"descriptions": ["a clean origami cat. it has fur.", "a clean origami cat. it is small.", 7, null]}\n```'
IMAGES = ("a.jpg", "p.jpg", "a.png", "p.png", "a.webp", "a.gif", "a.bmp", "a.tif", "a.ppm", "a.heic")


def _described() -> bytes:
    provenance = {"provider": "openai", "model": "m"}
    by_class = {"cat": {"date": "2026-01-01"}}
    head = {"format": "excel-descriptions/1", "provenance": provenance, "class_provenance": by_class}
    return json_of(head | {"classes": TEXTS})


def _read_prompts(folder: Path) -> Any:
    from excel_core.text.prompts import load_prompts

    return load_prompts(folder / "mine.yaml")


def _read_descriptions(folder: Path) -> Any:
    from excel_core.text.class_sets import named_classes
    from excel_core.text.descriptions import load_descriptions

    return load_descriptions(folder / "d.json", named_classes(CLASSES), 2)


def _read_user_descriptions(folder: Path) -> Any:
    from excel_core.text.class_sets import named_classes
    from excel_core.text.user_descriptions import load_user_descriptions

    return load_user_descriptions(folder / "d.json").select(named_classes(CLASSES), 2)


def _read_instruction(folder: Path) -> Any:
    from excel_core.text.class_sets import named_classes
    from excel_core.text.llm_descriptions import load_instruction

    prompts = named_classes(CLASSES)
    return load_instruction(folder / "describe.md").fill(prompts, prompts.classes[0], 3)


def _read_reply(folder: Path) -> Any:
    from excel_core.text.chat import Reply, Usage
    from excel_core.text.llm_descriptions import _usable_texts

    content = (folder / "reply.json").read_bytes().decode("utf-8", "replace")
    return _usable_texts(Reply(content, "", Usage()), "a clean origami cat. it ", [])


def _read_settings(folder: Path) -> Any:
    from excel_core.config.presets import preset, with_settings

    return with_settings(preset("demo"), (folder / "settings.txt").read_bytes().decode("utf-8", "surrogateescape").split("\n"))


def _read_edits(folder: Path) -> Any:
    from excel_core.config.presets import preset, with_edits

    try:
        edits = json.loads((folder / "edits.json").read_bytes())
    except (ValueError, RecursionError):  # of the server's own JSON
        return None
    return with_edits(preset("demo"), edits) if isinstance(edits, dict) else None


def _read_table(folder: Path) -> Any:
    from excel_core.datasets.labels import read_labels_csv

    return read_labels_csv(folder / "labels.csv", CLASSES)


def _read_folder_layout(folder: Path) -> Any:
    from excel_core.config.presets import preset, with_settings
    from excel_core.datasets.folder import check_folder_splits

    run = with_settings(preset("demo"), ["dataset.layout=folder", "dataset.val_splits=[val]"])
    return check_folder_splits(folder, run.dataset, CLASSES)


def _read_xml(folder: Path) -> Any:
    from excel_core.datasets.labels import read_labels_xml

    return read_labels_xml(folder / "a.xml", CLASSES)


def _read_list(folder: Path) -> Any:
    from excel_core.datasets.voc import read_split

    return read_split(folder, "train", CLASSES)


def _make_list(folder: Path) -> None:
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_bytes(b"2007_000032\n2007_000039\n\n2007_000063\n")


def _read_coco(folder: Path) -> Any:
    from excel_core.datasets.coco_json import read_entries

    return read_entries(folder / "instances.json")


def _read_coco_masks(folder: Path) -> Any:
    from excel_core.datasets.coco_masks import CocoMaskReader, coco_mask_reader

    reader: CocoMaskReader = coco_mask_reader(folder, "train", CLASSES)
    return [reader.read(image, 8, 9) for image in ("a", "b") if reader.has(image)]


def _make_coco_masks(folder: Path) -> None:
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_train.json").write_bytes(json_of(COCO))


def _read_proposals(folder: Path) -> Any:
    from excel_core.datasets.mask_proposals import read_proposals

    return [mask.sum() for mask in read_proposals(folder / "a.json", 8, 9).areas()]


PROPOSALS = [
    {"size": [8, 9], "counts": [3, 20, 49]},
    {"segmentation": {"size": [8, 9], "counts": "3d00"}, "predicted_iou": 0.9},
    {"size": [8, 8], "counts": [64]},
]


def _pixels() -> Any:
    return np.random.default_rng(0).integers(0, 255, (24, 33, 3), dtype=np.uint8)


def _make_images(folder: Path) -> None:
    image = Image.fromarray(_pixels())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "a.jpg", exif=exif)
    image.save(folder / "p.jpg", progressive=True, quality=20)
    image.save(folder / "a.png")
    image.quantize(9).save(folder / "p.png", transparency=3)
    image.save(folder / "a.webp")
    image.save(folder / "a.gif", save_all=True, append_images=[image.rotate(90)])
    image.save(folder / "a.bmp")
    image.save(folder / "a.tif", compression="tiff_lzw")
    image.save(folder / "a.ppm")
    # The first bytes of a HEIC file, which Pillow does not read.
    (folder / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\1\0meta\0\0\0\0" + bytes(200))


def _read_images(folder: Path) -> Any:
    from excel_core.datasets.images import DecodeOptions
    from excel_core.errors import ImageError

    pixels = []
    for path in sorted(folder.iterdir()):
        try:
            pixels.append(DecodeOptions(upright=True, max_side=100).read(path))
        except ImageError:  # recorded, and skipped: the others are read
            pixels.append(None)
    return pixels


def _make_masks(folder: Path) -> None:
    from excel_core.datasets.palette import save_labels_png

    save_labels_png(folder / "a.png", np.arange(12 * 9, dtype=np.uint8).reshape(9, 12) % 4)
    colours = Image.open(folder / "a.png").convert("RGB")
    colours.save(folder / "rgb.png")


def _read_masks(folder: Path) -> Any:
    from excel_core.datasets.palette import load_labels_png
    from excel_core.errors import DataError

    labels = []
    for name in ("a.png", "rgb.png"):
        try:
            labels.append(load_labels_png(folder / name))
        except DataError:
            labels.append(None)
    return labels


USER_READERS = (
    Reader(
        "class set",
        files_of(mine__yaml=YAML),
        _read_prompts,
        ["mine.yaml"],
        (b"name:", b"synonyms:", b"- ", b"{}", b"&a", b"*a", b"!!", b"|\n", b"? "),
    ),
    Reader("descriptions", files_of(d__json=_described()), _read_descriptions, ["d.json"], JSON_WORDS),
    Reader("user's descriptions", files_of(d__json=json_of(TEXTS)), _read_user_descriptions, ["d.json"], JSON_WORDS),
    Reader(
        "user's descriptions, excel's form", files_of(d__json=_described()), _read_user_descriptions, ["d.json"], JSON_WORDS
    ),
    Reader(
        "instruction",
        files_of(describe__md=INSTRUCTION),
        _read_instruction,
        ["describe.md"],
        (b"{n}", b"{", b"}", b"{class!r}", b"{n:>9999999999}", b"{n.real}", b"{others[0]}"),
    ),
    Reader("model's reply", files_of(reply__json=REPLY), _read_reply, ["reply.json"], JSON_WORDS),
    Reader(
        "settings",
        files_of(settings__txt=SETTINGS),
        _read_settings,
        ["settings.txt"],
        (b"=", b".", b"[", b"{a: 1}", b"!!", b"&a", b"train.", b"paper."),
    ),
    Reader("edits", files_of(edits__json=json_of(EDITS)), _read_edits, ["edits.json"], JSON_WORDS),
    Reader(
        "labels.csv",
        files_of(labels__csv=b'image,labels\na.jpg,cat\nb.jpg,dog;traffic light\n"c,d.jpg",cat\n'),
        _read_table,
        ["labels.csv"],
        (b",", b'"', b";", b"cat", b"\r\n", b"image,labels,split"),
    ),
    Reader(
        "folder layout",
        files_of(labels__csv=b"image,labels,split\na.jpg,cat,train\nb.jpg,dog;cat,val\n", a__jpg=b"", b__jpg=b""),
        _read_folder_layout,
        ["labels.csv"],
        (b",", b'"', b";", b"../a.jpg", b"train"),
    ),
    Reader(
        "VOC's XML",
        files_of(a__xml=XML),
        _read_xml,
        ["a.xml"],
        (b"<object>", b"<name>", b"</name>", b"<!DOCTYPE a [", b"]>", b"&amp;", b"<![CDATA[", b"<?xml"),
    ),
    Reader("VOC's list", _make_list, _read_list, ["ImageSets/Segmentation/train.txt"], (b"\n", b" 1", b"../", b"2007_000032")),
    Reader(
        "COCO's JSON",
        files_of(instances__json=json_of(COCO)),
        _read_coco,
        ["instances.json"],
        (b'"images"', b'"id"', *JSON_WORDS),
    ),
    Reader(
        "COCO's masks",
        _make_coco_masks,
        _read_coco_masks,
        ["annotations/instances_train.json"],
        (b'"segmentation"', b'"counts"', b'"size"', *JSON_WORDS),
    ),
    Reader(
        "mask proposals",
        files_of(a__json=json_of(PROPOSALS)),
        _read_proposals,
        ["a.json"],
        (b'"segmentation"', b'"counts"', b'"size"', b'"annotations"', *JSON_WORDS),
    ),
    Reader(
        "photos",
        _make_images,
        _read_images,
        IMAGES,
        (b"IHDR", b"IDAT", b"\xff\xd8", b"\xff\xdb", b"RIFF", b"GIF89a", b"Exif\0\0", b"%!PS-Adobe", b"II*\0"),
    ),
    Reader("masks", _make_masks, _read_masks, ["a.png", "rgb.png"], (b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"zTXt", b"iCCP")),
)
