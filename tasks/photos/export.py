"""A run's label maps or its trained segmenter, written in another tool's format into a folder of the user's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.model_card import CardFacts, model_card
from excel_core.config.presets import preset
from excel_core.config.setting_text import without_folders
from excel_core.config.unused import changed_fields, leaves
from excel_core.datasets.images import AS_STORED
from excel_core.datasets.layouts import decode_options
from excel_core.datasets.manifest import usable
from excel_core.errors import ImageError, SettingError
from excel_core.evaluation.protocols import FULLY_SUPERVISED, WITH_SAM
from excel_core.exports.coco_numbers import coco_numbers
from excel_core.exports.folder import check_free, whole_folder
from excel_core.exports.formats import LABEL_FORMATS, PHOTOS
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.onnx_graph import TOLERANCE, write_onnx
from excel_core.exports.photos import check_photos, with_photos
from excel_core.files import read_json, written_then_renamed
from excel_core.prediction.trained_segmenter import save_portable
from excel_core.stores import read_manifest
from tasks.engine.progress import Counter, say, track
from tasks.history.run_record import RunRecord
from tasks.photos.trained import class_names, committed_output, run_segmenter
from tasks.stages.predict import PredictResult
from tasks.stages.refine import PSEUDO_LABELS
from tasks.stages.train import TrainResult

__all__ = ["FORMATS", "MODEL_FORMATS", "ExportRequest", "export_run"]

MODEL_FORMATS = ("safetensors", "onnx")
FORMATS = (*LABEL_FORMATS, *MODEL_FORMATS)
MAX_CHECKED_PHOTOS = 4  # of the run's own, beside random images, on which ONNX is compared with PyTorch


@dataclass(frozen=True)
class ExportRequest:
    """What to export: a format and, of label maps, which. None: segmentation where the run has it, its best variant, and the
    only split. `photos` takes the photos along, which some formats do anyway. `force` replaces an earlier export in the same
    folder. `licence` of the weights, for their model card."""

    format: str
    what: str | None = None
    variant: str | None = None
    split: str | None = None
    photos: bool = False
    force: bool = False
    licence: str | None = None


def export_run(record: RunRecord, request: ExportRequest, out: Path) -> dict[str, Any]:
    """Fill `out`, completely or not at all → what export.json then says."""
    if request.format not in FORMATS:
        raise SettingError(f"--format {request.format!r}: valid formats: {', '.join(FORMATS)}")
    check_free(out, request.force)
    description: dict[str, Any] = {"as": request.format, "run": record.id, "class_names": list(class_names(record))}
    if request.format in MODEL_FORMATS:
        if request.what or request.variant or request.split or request.photos:
            raise SettingError(
                f"--format {request.format} is the trained segmenter: leave out --what, --variant, --split and --photos"
            )
        description |= _supervision(record)
        _export_model(record, request, out, description)
    else:
        _export_labels(record, request, out, description)
    return description


def _export_labels(record: RunRecord, request: ExportRequest, out: Path, description: dict[str, Any]) -> None:
    chosen, maps = chosen_maps(record, request)
    description |= chosen | {"images": len(maps)} | ({} if chosen.get("stage") == "refine" else _supervision(record))
    if chosen["what"] == "pseudo" and record.run.refine.votes.enabled:
        description["supervision"] = WITH_SAM
    names, label_format = description["class_names"], LABEL_FORMATS[request.format]
    photos = label_format.photos or (PHOTOS if request.photos else "")
    if photos:
        check_photos(maps)
    decode = decode_options(record.run.dataset)
    if not photos and decode != AS_STORED:
        description["sizes"] = "photos as the run read them, upright and shrunk to dataset.max_side; --photos takes these along"
    with whole_folder(out, request.force, description) as folder, Counter("export", len(maps)):
        numbers = {}
        if label_format.numbers:
            root = Path(record.data) if record.data else None
            numbers = {"numbers": coco_numbers(root, record.run.dataset, chosen["split"]) if root else None}
        # One after the other: a photo is there before its label map is written.
        every = with_photos(track(maps), folder / photos, decode, len(names)) if photos else track(maps)
        description |= label_format.write(folder, names, every, **numbers)


def _export_model(record: RunRecord, request: ExportRequest, out: Path, description: dict[str, Any]) -> None:
    trained = run_segmenter(record, "cpu")
    with whole_folder(out, request.force, description) as folder:
        file = folder / f"segmenter.{request.format}"
        if request.format == "safetensors":
            save_portable(file, trained)
        else:
            say("export: making the graph and checking it against PyTorch, which takes a minute")
            check = write_onnx(file, trained, _photos(record))
            description["check"] = {**vars(check), "tolerance": TOLERANCE}
        with written_then_renamed(folder / "README.md") as temporary:
            temporary.write_text(_card(record, request, file.name), encoding="utf-8")


def _card(record: RunRecord, request: ExportRequest, file: str) -> str:
    run, trained = record.run, committed_output(record, "train").result_as(TrainResult)
    metrics = None
    if "evaluate" in record.own:
        metrics = read_json(committed_output(record, "evaluate").folder / "metrics.json")
    settings_by_name = dict(leaves(run))
    changed = changed_fields(run, preset(run.preset, run.method))
    facts = CardFacts(
        run=record.id,
        preset=run.preset,
        method=run.method,
        clip=without_folders(run.clip.model),
        second_encoder=without_folders(run.dino.model) if run.dino.model else None,
        class_names=class_names(record),
        supervision=trained.supervision or "image-level labels",
        iterations=trained.iterations,
        settings=[f"{name}={without_folders(str(settings_by_name[name]))}" for name in changed],
        licence=request.licence,
        files=(file,),
    )
    return model_card(facts, metrics)


def _supervision(record: RunRecord) -> dict[str, str]:
    """What a training on true masks had a part in says so."""
    return {"supervision": FULLY_SUPERVISED} if record.run.train.supervision == "masks" else {}


def chosen_maps(record: RunRecord, request: ExportRequest) -> tuple[dict[str, Any], list[LabelMap]]:
    """What the label maps are, and the label maps in the split's order."""
    what = request.what or ("segmentation" if "predict" in record.own else "pseudo")
    if what == "pseudo":
        if request.variant:
            raise SettingError("--variant chooses among segmentations; pseudo labels have none")
        stage = "dynamic" if "dynamic" in record.own else "refine"
        folder = committed_output(record, stage).folder / PSEUDO_LABELS
        split = _one_of(record.run.dataset.cam_splits, request.split, "--split")
        description: dict[str, Any] = {"what": what, "stage": stage, "split": split}
    elif what == "segmentation":
        output = committed_output(record, "predict")
        predicted = output.result_as(PredictResult)
        variant = _one_of(predicted.variants, request.variant or predicted.variants[-1], "--variant")
        split = _one_of(list(predicted.images), request.split, "--split")
        folder = output.folder / variant / split
        description = {"what": what, "variant": variant, "split": split}
    else:
        raise SettingError(f"--what {what!r}: valid: pseudo, segmentation")
    rows = usable(read_manifest(committed_output(record, "dataset").folder / "manifest.parquet"), split).to_dict("records")
    files = {row["id"]: Path(row["image"]) for row in rows}
    root = _data_folder(record)
    every = [LabelMap(name, folder / f"{name}.png", file.name, root / file) for name, file in files.items()]
    maps = [label_map for label_map in every if label_map.path.exists()]
    if not maps:
        raise SettingError(f"run {record.id} has no label maps in {folder}")
    if len(maps) < len(every):
        without = [label_map.id for label_map in every if not label_map.path.exists()]
        description["left_out"] = dict.fromkeys(without, "the run has no label map of it")
    return description, maps


def _one_of(valid: Sequence[str], name: str | None, option: str) -> str:
    """`name`, or the only valid one."""
    if name is None and len(valid) == 1:
        return valid[0]
    if name is None or name not in valid:
        problem = f"{option} {name!r}" if name else f"{option} is needed"
        raise SettingError(f"{problem}: this run has {', '.join(valid) or 'none'}")
    return name


def _data_folder(record: RunRecord) -> Path:
    """Where the run's images are, or were."""
    return record.output("world") if "world" in record.own else Path(record.data or "")


def _photos(record: RunRecord) -> list[Any]:
    """A few of the run's images, as far as its data are still there: a check on random images alone is a check as well."""
    manifest = read_manifest(committed_output(record, "dataset").folder / "manifest.parquet")
    data_folder = _data_folder(record)
    photos = []
    for image in manifest[manifest["error"] == ""]["image"].head(MAX_CHECKED_PHOTOS):
        try:
            photos.append(decode_options(record.run.dataset).read(data_folder / image))
        except ImageError:
            continue
    return photos
