"""Stage `dataset`: images, sizes, image-level labels and splits → manifest.parquet. Masks are never read."""

from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field

from excel_core.config import DatasetSpec, RunSpec
from excel_core.datasets.images import image_formats
from excel_core.datasets.layouts import LAYOUTS, read_data_set
from excel_core.datasets.left_out import LeftOut, left_out_lines
from excel_core.datasets.photo_files import printable
from excel_core.datasets.published_voc import has_voc_classes, published_digest
from excel_core.errors import SettingError
from excel_core.safe_csv import read_rows, write_csv
from excel_core.stores import write_manifest
from excel_core.text.class_sets import class_set
from tasks.engine.fingerprint import digest_of, folders_fingerprint
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.stage import Job, RunEnvironment

__all__ = [
    "LEFT_OUT_CSV", "DatasetResult", "check_layout", "data_files", "left_out_things", "left_out_told", "read_dataset",
    "settings",
]  # fmt: skip

LEFT_OUT_CSV, LEFT_OUT_COLUMNS = "left_out.csv", ("what", "reason")


class DatasetResult(StageResult):
    """By split: images, images left out for want of any object, and, with dataset.partial, images that are not in the folder.
    `bad`: why an image cannot be used, by id. `turned`: the EXIF orientation of images that are decoded as they are
    stored all the same, by id. `unused`: how many photos, folders and classes are left out, by reason; each of them is in
    left_out.csv."""

    images: dict[str, int]
    left_out: dict[str, int]
    absent: dict[str, int]
    bad: dict[str, str]
    turned: dict[str, int] = Field(default_factory=dict)
    unused: dict[str, int] = Field(default_factory=dict)


def read_dataset(job: Job, folder: Path) -> DatasetResult:
    """Read the data folder; bad images are recorded with their reasons."""
    spec = job.run.dataset
    check_layout(spec)
    class_names = class_set(job.run, job.environment.data).class_names
    manifest = read_data_set(job.data, spec, class_names)
    left_out, absent = manifest.attrs.pop("left_out", {}), manifest.attrs.pop("absent", {})
    turned = manifest.attrs.pop("turned", {})
    write_manifest(folder / "manifest.parquet", manifest)
    things = left_out_things(job.run, job.environment)
    if things:
        write_csv(folder / LEFT_OUT_CSV, LEFT_OUT_COLUMNS, ((printable(thing.what), thing.reason) for thing in things))
    bad = manifest[manifest["error"] != ""]
    return DatasetResult(
        images={split: int((manifest["split"] == split).sum()) for split in spec.settings_of_splits},
        left_out=left_out,
        absent=absent,
        bad={row.id: row.error for row in bad.itertuples()},
        turned={image: turned[image] for image in sorted(turned.keys() & set(manifest["id"]))},
        unused=Counter(thing.reason for thing in things),
    )


def left_out_things(run: RunSpec, environment: RunEnvironment) -> list[LeftOut]:
    """What the run leaves out of its data folder, as the folder is now."""
    if environment.data is None:  # the drawn world
        return []
    class_names = class_set(run, environment.data).class_names
    return LAYOUTS[run.dataset.layout].left_out(environment.data, run.dataset, class_names, environment.store)


def left_out_told(dataset: StageOutput) -> list[str]:
    """In a line a reason, what the images of this output leave out."""
    total = sum(dataset.result_as(DatasetResult).unused.values())
    rows = read_rows(dataset.folder / LEFT_OUT_CSV, total) if total else []
    return left_out_lines(LeftOut(row["what"], row["reason"]) for row in rows)


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


def settings(run: RunSpec) -> dict[str, Any]:
    """Layout, splits, and the options of the layout's reader."""
    splits = {"train_split", "seed_splits", "val_splits", "test_splits"}
    options = LAYOUTS[run.dataset.layout].options
    return run.dataset.model_dump(mode="json", include={"layout", *splits, "max_images", "max_bad", *options})


def data_files(run: RunSpec, environment: RunEnvironment) -> dict[str, Any]:
    """Class names, and versions of the files that the layout reads."""
    class_names = class_set(run, environment.data).class_names
    outside: dict[str, Any] = {"classes": list(class_names)}
    if environment.data is None:  # the drawn world: an input of its own
        return outside
    if run.dataset.layout == "voc" and has_voc_classes(class_names):
        outside["published"] = published_digest()
    files = folders_fingerprint(environment.data, *LAYOUTS[run.dataset.layout].sources(environment.data))
    left_out = [[thing.what, thing.reason] for thing in left_out_things(run, environment)]
    if left_out:
        outside["left_out"] = digest_of(left_out)
    if run.dataset.layout == "folder":  # photos of an extra's format are read once it is installed
        outside["formats"] = list(image_formats())
    return outside | {"files": files}
