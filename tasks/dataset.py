"""Stage `dataset`: images, sizes, image-level labels and splits → manifest.parquet. Masks are never read."""

from typing import Any

from excel_core.config import DatasetSpec, RunSpec
from excel_core.datasets.layouts import LAYOUTS
from excel_core.datasets.published_voc import has_voc_classes, published_digest
from excel_core.errors import SettingError
from excel_core.stores import write_manifest
from excel_core.text.class_sets import class_set
from tasks.engine.fingerprint import folders_fingerprint
from tasks.engine.stage import RunEnvironment, Stage, Work

__all__ = ["STAGE", "check_layout"]

OPTIONS = {"voc": {"labels", "partial"}, "folder": {"max_side"}}  # what a layout's reader takes beside splits and classes


def build_dataset(work: Work) -> dict[str, Any]:
    """Read the data folder; bad images are recorded with their reasons."""
    spec = work.run.dataset
    check_layout(spec)
    names = class_set(work.run, work.place.data).class_names
    splits = list(spec.settings_of_splits)
    layout, options = LAYOUTS[spec.layout], spec.model_dump(include=OPTIONS.get(spec.layout, set()))
    manifest = layout.read(work.data, splits, names, unlabelled=spec.test_splits, max_bad=spec.max_bad, **options)
    left_out = manifest.attrs.pop("left_out", {})  # split -> how many images a layout leaves out for want of any object
    absent = manifest.attrs.pop("absent", {})  # split -> how many images are not in the folder, with dataset.partial
    if spec.max_images is not None:
        manifest = manifest.groupby("split", sort=False).head(spec.max_images).reset_index(drop=True)
    write_manifest(work.folder / "manifest.parquet", manifest)
    bad = manifest[manifest["error"] != ""]
    return {
        "images": {split: int((manifest["split"] == split).sum()) for split in splits},
        "left_out": left_out,
        "absent": absent,
        "bad": {row.id: row.error for row in bad.itertuples()},
    }


def check_layout(spec: DatasetSpec) -> None:
    """SettingError for what the layout does not allow, a split twice in a list, a test split that is another one too, and a
    seed split that the world does not draw."""
    if spec.layout not in LAYOUTS:
        raise SettingError(f"dataset.layout={spec.layout} has no reader; valid: {', '.join(LAYOUTS)}")
    if spec.max_side is not None and spec.layout != "folder":
        raise SettingError(f"dataset.max_side is for a folder of photos; the masks of layout {spec.layout!r} would not fit")
    if spec.partial and spec.layout != "voc":
        raise SettingError(f"dataset.partial is for layout voc, whose lists may name images of no folder; got {spec.layout!r}")
    for field in ("seed_splits", "val_splits", "test_splits"):
        splits = getattr(spec, field)
        if len(set(splits)) < len(splits):
            raise SettingError(f"dataset.{field}: [{', '.join(splits)}] names a split twice; name each once")
    twice = set(spec.test_splits) & set(spec.labelled_splits)
    if twice:
        raise SettingError(f"dataset.test_splits: {', '.join(sorted(twice))} is a train, seed or validation split already")
    drawn = [spec.train_split, *spec.val_splits]
    unknown = [split for split in spec.seed_splits if split not in drawn] if spec.layout == "world" else []
    if unknown:
        valid = ", ".join(dict.fromkeys(drawn))
        example = f"--set 'dataset.seed_splits=[{spec.train_split}]'"
        raise SettingError(f"dataset.seed_splits: the world has no split {unknown[0]!r}; valid: {valid}; {example}")


def _spec(run: RunSpec) -> dict[str, Any]:
    splits = {"train_split", "seed_splits", "val_splits", "test_splits"}
    options = OPTIONS.get(run.dataset.layout, set())
    return run.dataset.model_dump(mode="json", include={"layout", *splits, "max_images", "max_bad", *options})


def _outside(run: RunSpec, place: RunEnvironment) -> dict[str, Any]:
    names = class_set(run, place.data).class_names
    outside: dict[str, Any] = {"classes": list(names)}
    if place.data is None:  # the drawn world: an input of its own
        return outside
    if run.dataset.layout == "voc" and has_voc_classes(names):
        outside["published"] = published_digest()
    return outside | {"files": folders_fingerprint(place.data, *LAYOUTS[run.dataset.layout].sources(place.data))}


STAGE = Stage("dataset", (), _spec, build_dataset, outside=_outside, reads_data=True, reads_labels=True)
