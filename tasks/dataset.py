"""Stage `dataset`: images, sizes, image-level labels and splits → manifest.parquet. Masks are never read."""

from typing import Any

from excel_core.config import DatasetSpec, RunSpec
from excel_core.datasets.voc import read_voc
from excel_core.errors import DataError
from excel_core.prompts import load_prompts
from excel_core.stores import write_manifest
from tasks.fingerprint import folders_fingerprint
from tasks.prompt_files import prompts_file
from tasks.stage import Place, Stage, Work

__all__ = ["STAGE", "check_layout"]

SOURCES = ("JPEGImages", "Annotations", "ImageSets", "labels.csv")


def build_dataset(work: Work) -> dict[str, Any]:
    """Read the data folder; bad images are recorded with their reasons."""
    spec = work.run.dataset
    check_layout(spec)
    names = load_prompts(prompts_file(spec.prompts)).class_names
    splits = list(dict.fromkeys((spec.train_split, *spec.val_splits)))
    manifest = read_voc(work.data, splits, names)
    if spec.max_images is not None:
        manifest = manifest.groupby("split", sort=False).head(spec.max_images).reset_index(drop=True)
    write_manifest(work.folder / "manifest.parquet", manifest)
    bad = manifest[manifest["error"] != ""]
    return {
        "images": {split: int((manifest["split"] == split).sum()) for split in splits},
        "bad": {row.id: row.error for row in bad.itertuples()},
    }


def check_layout(spec: DatasetSpec) -> None:
    """DataError for a layout that has no reader yet."""
    if spec.layout == "coco":
        raise DataError("preset 'coco': the COCO reader is not part of this version; convert to VOC layout and use 'voc'")


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.dataset.model_dump(mode="json", include={"layout", "train_split", "val_splits", "max_images"}) | {
        "classes": list(load_prompts(prompts_file(run.dataset.prompts)).class_names)
    }


def _outside(run: RunSpec, place: Place) -> str | None:
    return folders_fingerprint(place.data, *SOURCES)


STAGE = Stage("dataset", (), _spec, build_dataset, outside=_outside, reads_data=True)
