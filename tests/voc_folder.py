"""Plain VOC 2012 in small, as downloaded: real ids and labels (facts), drawn pictures; no train_aug list, no labels.csv."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from excel_core.datasets.palette import save_labels_png
from excel_core.text.prompts import load_prompts
from excel_core.world.scenes import render_scene
from tests.conftest import ROOT

TRAIN = ("2007_000032", "2007_000039", "2007_000063")
MORE = ("2008_000002", "2008_000008")  # of train_aug, not of VOC's train
VAL = ("2007_000033", "2007_000042")
ANNOTATED = {
    "2007_000032": ("aeroplane", "aeroplane", "person"),
    "2007_000039": ("tvmonitor",),
    "2007_000063": ("dog", "chair"),
    "2008_000002": ("tvmonitor",),
    "2008_000008": ("horse",),  # the published labels have a person as well
    "2007_000033": ("aeroplane",),
    "2007_000042": ("train",),
}
NAMES = load_prompts(ROOT / "prompts" / "voc.yaml").class_names


def write_voc(root: Path, size: int = 48) -> Path:
    """Fill `root` → itself. Masks of train and val, as in VOC; TRAIN and VAL in lists, Annotations of all."""
    (root / "JPEGImages").mkdir(parents=True)
    for seed, (image_id, names) in enumerate(ANNOTATED.items(), start=1):
        scene = render_scene(seed, size)
        Image.fromarray(scene.image).save(root / "JPEGImages" / f"{image_id}.jpg", quality=95)
        if image_id not in MORE:
            save_labels_png(root / "SegmentationClass" / f"{image_id}.png", scene.mask)
        write_annotation(root, image_id, names)
    write_list(root, "train", TRAIN)
    write_list(root, "val", VAL)
    return root


def write_annotation(root: Path, image_id: str, names: Sequence[str]) -> None:
    """VOC's XML, as far as labels need it."""
    (root / "Annotations").mkdir(exist_ok=True)
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    (root / "Annotations" / f"{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")


def write_list(root: Path, split: str, ids: Sequence[str]) -> None:
    """One id a line."""
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
