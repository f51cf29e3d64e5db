"""A run's label maps or its trained segmenter, written in another tool's format into a folder of the user's."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.datasets.manifest import usable
from excel_core.errors import ImageError, SettingError
from excel_core.evaluation.protocols import FULLY_SUPERVISED
from excel_core.exports.coco_results import coco_numbers, write_coco
from excel_core.exports.cvat import write_cvat
from excel_core.exports.folder import check_free, whole_folder
from excel_core.exports.label_maps import LabelMap, write_binary, write_palette
from excel_core.exports.onnx_graph import TOLERANCE, write_onnx
from excel_core.exports.voc_submission import write_voc_submission
from excel_core.prediction.trained_segmenter import save_portable
from excel_core.stores import read_manifest
from tasks.engine.progress import Counter, say, track
from tasks.history.run_record import RunRecord
from tasks.inputs.records import decode_options_of
from tasks.photos.trained import class_names, run_segmenter, sealed
from tasks.refine import PSEUDO_LABELS

__all__ = ["FORMATS", "LABEL_FORMATS", "MODEL_FORMATS", "Wanted", "export_run"]

Writer = Callable[[Path, Sequence[str], Iterable[LabelMap]], dict[str, Any]]
LABEL_FORMATS: dict[str, Writer] = {
    "palette": write_palette,
    "binary": write_binary,
    "coco": write_coco,
    "cvat": write_cvat,
    "voc-submission": write_voc_submission,
}
MODEL_FORMATS = ("safetensors", "onnx")
FORMATS = (*LABEL_FORMATS, *MODEL_FORMATS)
CHECKED_PHOTOS = 4  # of the run's own, beside random images, on which ONNX is compared with PyTorch


@dataclass(frozen=True)
class Wanted:
    """What to export: a format and, of label maps, which. None: segmentation where the run has it, its best variant, and the
    only split. `force` replaces an earlier export in the same folder."""

    format: str
    what: str | None = None
    variant: str | None = None
    split: str | None = None
    force: bool = False


def export_run(record: RunRecord, wanted: Wanted, out: Path) -> dict[str, Any]:
    """Fill `out`, completely or not at all → what export.json then says."""
    if wanted.format not in FORMATS:
        raise SettingError(f"--format {wanted.format!r}: valid formats: {', '.join(FORMATS)}")
    check_free(out, wanted.force)
    about: dict[str, Any] = {"as": wanted.format, "run": record.id, "class_names": list(class_names(record))}
    if wanted.format in MODEL_FORMATS:
        if wanted.what or wanted.variant or wanted.split:
            raise SettingError(f"--format {wanted.format} is the trained segmenter: leave out --what, --variant and --split")
        about |= _supervision(record)
        _export_model(record, wanted, out, about)
    else:
        _export_labels(record, wanted, out, about)
    return about


def _export_labels(record: RunRecord, wanted: Wanted, out: Path, about: dict[str, Any]) -> None:
    chosen, maps = chosen_maps(record, wanted)
    about |= chosen | {"images": len(maps)} | ({} if chosen.get("stage") == "refine" else _supervision(record))
    names, write = about["class_names"], LABEL_FORMATS[wanted.format]
    with whole_folder(out, wanted.force, about) as folder, Counter("export", len(maps)):
        if write is write_coco:
            numbers = coco_numbers(Path(record.data), record.run.dataset, chosen["split"]) if record.data else None
            about |= write_coco(folder, names, track(maps), numbers)
        else:
            about |= write(folder, names, track(maps))


def _export_model(record: RunRecord, wanted: Wanted, out: Path, about: dict[str, Any]) -> None:
    trained = run_segmenter(record, "cpu")
    with whole_folder(out, wanted.force, about) as folder:
        if wanted.format == "safetensors":
            save_portable(folder / "segmenter.safetensors", trained)
            return
        say("export: making the graph and checking it against PyTorch, which takes a minute")
        check = write_onnx(folder / "segmenter.onnx", trained, _photos(record))
        about["check"] = {**vars(check), "tolerance": TOLERANCE}


def _supervision(record: RunRecord) -> dict[str, str]:
    """What a training on true masks had a part in says so."""
    return {"supervision": FULLY_SUPERVISED} if record.run.train.supervision == "masks" else {}


def chosen_maps(record: RunRecord, wanted: Wanted) -> tuple[dict[str, Any], list[LabelMap]]:
    """What the label maps are, and the label maps in the split's order."""
    what = wanted.what or ("segmentation" if "predict" in record.own else "pseudo")
    if what == "pseudo":
        if wanted.variant:
            raise SettingError("--variant chooses among segmentations; pseudo labels have none")
        stage = "dynamic" if "dynamic" in record.own else "refine"
        folder = sealed(record, stage).folder / PSEUDO_LABELS
        split = _one_of(record.run.dataset.cam_splits, wanted.split, "--split")
        about = {"what": what, "stage": stage, "split": split}
    elif what == "segmentation":
        output = sealed(record, "predict")
        variants: list[str] = output.summary["variants"]
        variant = _one_of(variants, wanted.variant or variants[-1], "--variant")
        split = _one_of(list(output.summary["images"]), wanted.split, "--split")
        folder = output.folder / variant / split
        about = {"what": what, "variant": variant, "split": split}
    else:
        raise SettingError(f"--what {what!r}: valid: pseudo, segmentation")
    rows = usable(read_manifest(sealed(record, "dataset").folder / "manifest.parquet"), split)
    files = {row.id: Path(row.image).name for row in rows.itertuples()}
    maps = [LabelMap(name, folder / f"{name}.png", file) for name, file in files.items() if (folder / f"{name}.png").exists()]
    if not maps:
        raise SettingError(f"run {record.id} has no label maps in {folder}")
    return about, maps


def _one_of(valid: Sequence[str], wanted: str | None, option: str) -> str:
    """`wanted`, or the only valid one."""
    if wanted is None and len(valid) == 1:
        return valid[0]
    if wanted not in valid:
        problem = f"{option} {wanted!r}" if wanted else f"{option} is needed"
        raise SettingError(f"{problem}: this run has {', '.join(valid) or 'none'}")
    return wanted


def _photos(record: RunRecord) -> list[Any]:
    """A few of the run's images, as far as its data are still there: a check on random images alone is a check as well."""
    manifest = read_manifest(sealed(record, "dataset").folder / "manifest.parquet")
    data = record.output("world") if "world" in record.own else Path(record.data or "")
    found = []
    for image in manifest[manifest["error"] == ""]["image"].head(CHECKED_PHOTOS):
        try:
            found.append(decode_options_of(record.run.dataset).read(data / image))
        except ImageError:
            continue
    return found
