"""Where COCO's files lie under a data folder: annotations and images of a split, which may leave out its year."""

from collections.abc import Sequence
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.errors import DataError

__all__ = ["SOURCES", "annotation_file", "check_coco_layout", "check_coco_splits", "image_folder", "unlabelled_source"]

YEARS = ("2014", "2017")
FOLDERS = (*(f"{name}{year}" for year in YEARS for name in ("train", "val", "test")), "test2015", "unlabeled2017")
SOURCES = ("annotations", "images", *FOLDERS)  # all that is looked at under the root
SETTING = {"train": "dataset.train_split={0} --set 'dataset.seed_splits=[{0}]'", "test": "dataset.test_splits=[{}]"}
PROBED = 20  # of a split's files, by which the folder is found that holds them
SHOWN = 8  # how many entries of a wrong folder an error names


def check_coco_layout(root: Path) -> None:
    """Raise DataError, saying what was looked for, what is there and what to pass, unless root has annotations/."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; pass the folder that holds annotations/ and train2014/ or images/")
    if (root / "annotations").is_dir():
        return
    near = [path.parent for depth in ("*", "*/*") for path in sorted(root.glob(f"{depth}/annotations")) if path.is_dir()]
    near += [parent for parent in list(root.resolve().parents)[:2] if (parent / "annotations").is_dir()]
    names = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    found = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    raise DataError(
        f"{root}: not COCO as downloaded: looked for annotations/instances_*.json; found {found or 'an empty folder'}"
        + (f"; pass {near[0]} instead" if near else "")
    )


def check_coco_splits(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> None:
    """DataError, naming the setting, for a split without its file; reads none."""
    for split, setting in spec.settings_of_splits.items():
        try:
            (annotation_file if split in spec.labelled_splits else unlabelled_source)(root, split)
        except DataError as error:
            raise DataError(f"{setting.partition('=')[0]}: {error}") from None


def annotation_file(root: Path, split: str) -> Path:
    """The file with a split's annotations: instances_SPLIT.json, or that of the one year that is there. DataError where
    there is none, or one of each year."""

    def file_of(name: str) -> Path:
        return root / "annotations" / f"instances_{name}.json"

    found = _with_year(root, split, [name for name in _names(split) if file_of(name).is_file()])
    if found is None:
        valid = ", ".join(sorted(path.stem.partition("_")[2] for path in (root / "annotations").glob("instances_*.json")))
        wanted = " or ".join(f"annotations/instances_{name}.json" for name in _names(split))
        raise DataError(f"unknown split {split!r}: {root} has no {wanted}; it has: {valid or 'none'}")
    return file_of(found)


def unlabelled_source(root: Path, split: str) -> Path:
    """What tells the images of a split without labels: image_info_SPLIT.json, else instances_SPLIT.json, else the folder of
    the images; or those of the one year that is there. DataError as in `annotation_file`."""

    def sources(name: str) -> list[Path]:
        files = [root / "annotations" / f"{kind}_{name}.json" for kind in ("image_info", "instances")]
        return [path for path in files if path.is_file()] + [root / folder for folder in _folders(root, name)]

    found = _with_year(root, split, [name for name in _names(split) if sources(name)])
    if found is None:
        wanted = f"annotations/image_info_{split}.json, images/{split}/"
        raise DataError(f"unknown split {split!r}: {root} has neither of {wanted}, of no year")
    return sources(found)[0]


def image_folder(root: Path, name: str, files: Sequence[str]) -> str:
    """The folder under root that holds a split's `files`: NAME/ or images/NAME/, else whichever of the known ones has some
    of the first of them. DataError where there is none."""
    named = _folders(root, name)
    inner = sorted(f"images/{path.name}" for path in (root / "images").glob("*/"))
    for folder in (*named, *FOLDERS, *inner, "images"):
        if any((root / folder / file).is_file() for file in files[:PROBED]):
            return folder
    if not named:
        raise DataError(f"{root}: no folder holds the images of {name}; put them into images/{name}/")
    return named[0]


def _names(split: str) -> list[str]:
    """`train` → train, train2014, train2017. DataError for what is no file's name."""
    if Path(split).name != split:
        raise DataError(f"unknown split {split!r}: a split is a name such as train2014")
    return [split, *(split + year for year in YEARS)]


def _with_year(root: Path, split: str, found: list[str]) -> str | None:
    """The one of `found`, or the split itself where it is among them."""
    if len(found) > 1 and split not in found:
        setting = SETTING.get(split, "dataset.val_splits=[{}]").format(found[0])
        raise DataError(f"{root}: split {split!r} is {' and '.join(found)}; say which one, e.g. --set {setting}")
    return found[0] if found else None


def _folders(root: Path, name: str) -> list[str]:
    """Folders of images under a split's name; test-dev2017 is a part of test2017."""
    names = dict.fromkeys((name, name.replace("-dev", "")))
    candidates = [folder for folder in names if folder in FOLDERS] + [f"images/{folder}" for folder in names]
    return [folder for folder in candidates if (root / folder).is_dir()]
