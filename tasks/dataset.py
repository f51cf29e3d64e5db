"""Stage `dataset`: images, sizes, image-level labels and splits → manifest.parquet. Masks are never read."""

from typing import Any

from excel_core.config import DatasetSpec, RunSpec
from excel_core.datasets.layouts import LAYOUTS
from excel_core.errors import SettingError
from excel_core.stores import write_manifest
from tasks.engine.fingerprint import folders_fingerprint
from tasks.engine.stage import Place, Stage, Work
from tasks.inputs.prompt_files import class_set

__all__ = ["STAGE", "check_layout"]


def build_dataset(work: Work) -> dict[str, Any]:
    """Read the data folder; bad images are recorded with their reasons."""
    spec = work.run.dataset
    check_layout(spec)
    names = class_set(work.run, work.place.data).class_names
    splits = list(dict.fromkeys((spec.train_split, *spec.val_splits, *spec.test_splits)))
    options: dict[str, Any] = {"max_side": spec.max_side} if spec.layout == "folder" else {}
    layout = LAYOUTS[spec.layout]
    manifest = layout.read(work.data, splits, names, unlabelled=spec.test_splits, max_bad=spec.max_bad, **options)
    left_out = manifest.attrs.pop("left_out", {})  # split -> how many images a layout leaves out for want of any object
    if spec.max_images is not None:
        manifest = manifest.groupby("split", sort=False).head(spec.max_images).reset_index(drop=True)
    write_manifest(work.folder / "manifest.parquet", manifest)
    bad = manifest[manifest["error"] != ""]
    return {
        "images": {split: int((manifest["split"] == split).sum()) for split in splits},
        "left_out": left_out,
        "bad": {row.id: row.error for row in bad.itertuples()},
    }


def check_layout(spec: DatasetSpec) -> None:
    """SettingError for what the layout does not allow, and for a test split that is another one too."""
    if spec.layout not in LAYOUTS:
        raise SettingError(f"dataset.layout={spec.layout} has no reader; valid: {', '.join(LAYOUTS)}")
    if spec.max_side is not None and spec.layout != "folder":
        raise SettingError(f"dataset.max_side is for a folder of photos; the masks of layout {spec.layout!r} would not fit")
    twice = set(spec.test_splits) & {spec.train_split, *spec.val_splits}
    if twice:
        raise SettingError(f"dataset.test_splits: {', '.join(sorted(twice))} is a train or validation split already")


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.dataset.model_dump(
        mode="json", include={"layout", "train_split", "val_splits", "test_splits", "max_images", "max_bad", "max_side"}
    )


def _outside(run: RunSpec, place: Place) -> dict[str, Any]:
    found = {"classes": list(class_set(run, place.data).class_names)}
    if place.data is None:  # the drawn world: an input of its own
        return found
    return found | {"files": folders_fingerprint(place.data, *LAYOUTS[run.dataset.layout].sources(place.data))}


STAGE = Stage("dataset", (), _spec, build_dataset, outside=_outside, reads_data=True, reads_labels=True)
