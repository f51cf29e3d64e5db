"""From a request to the runs of a table of the paper, one for each data set. Knows no Prefect."""

from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.config.methods import METHODS, parse_method
from excel_core.config.presets import SCHEDULE, with_edits
from excel_core.errors import SettingError
from excel_core.models.published_checkpoint import read_published
from excel_core.paper.tables import limit_run
from excel_core.text.class_sets import class_set
from flows.request import PaperRequest, ResolvedRun, RunRequest
from flows.settings import check_data, run_environment
from tasks.engine.stage import RunEnvironment
from tasks.stages.paper import table_runs

__all__ = ["paper_runs"]

WITH_COCO = ("table-1", "table-7")
OTHERS = {"voc": "coco.", "coco": "voc."}  # what begins a setting of the other data set
NO_CHECKPOINT = {"table-5": "needs no training", "table-7": "measures the training itself"}


def paper_runs(request: PaperRequest) -> list[ResolvedRun]:
    """A run for each data set that is named. `settings` are of all of them, but one that begins with `voc.` or `coco.` is of
    that data set alone. Raises for anything wrong, before work starts."""
    _check_request(request)
    checkpoint_classes = read_published(Path(request.checkpoint)).sizes.classes if request.checkpoint else None
    runs = []
    for preset, folder in (("voc", request.data), ("coco", request.coco)):
        settings = _settings_of(preset, request.settings, folder is not None)
        if folder is not None:
            runs.append(_paper_run(request, preset, folder, settings, checkpoint_classes))
    if checkpoint_classes is not None and all(run.train.from_checkpoint is None for run, _ in runs):
        raise SettingError(
            f"--checkpoint {request.checkpoint}: is of {checkpoint_classes} classes, of none of the data sets that are named"
        )
    return runs


def _check_request(request: PaperRequest) -> None:
    """SettingError where the table does not go with the data sets that are named, with the method, or with a setting."""
    name, _ = parse_method(request.method)
    if name != "excel":
        valid = ", ".join(f"excel:{variant}" for variant in METHODS["excel"])
        raise SettingError(f"--method {request.method}: {request.table} is of the paper of excel; valid methods: {valid}")
    if request.coco is not None and request.table not in WITH_COCO:
        raise SettingError(f"--coco: {request.table} is about VOC alone; COCO stands in {' and '.join(WITH_COCO)}")
    if request.data is None and request.coco is None:
        raise SettingError("name the data: --data DIR for PASCAL VOC 2012, --coco DIR for MS COCO")
    of_the_table = [setting for setting in request.settings if "paper." in setting.partition("=")[0]]
    if of_the_table:
        raise SettingError(f"--set {of_the_table[0]}: the table and --limit are told by name; leave the setting out")


def _paper_run(
    request: PaperRequest, preset: str, folder: str, settings: list[str], checkpoint_classes: int | None
) -> ResolvedRun:
    """The table's run on one data set; the checkpoint is of it where the numbers of classes agree."""
    shared = {name: getattr(request, name) for name in ("method", "store", "clip", "device", "gpus")}
    plain = RunRequest.checked(preset=preset, data=folder, **shared)
    run = plain.spec()
    run = limit_run(run, request.limit) if request.limit else run
    fits = checkpoint_classes == len(class_set(run, Path(folder)).class_names)
    edits = _changes(run, request.checkpoint if fits else None)
    edited = plain.model_copy(update={"settings": settings, "edits": edits})
    run = edited.spec()
    _check_training(run, request.table)
    environment = run_environment(run, edited)
    if request.table != "figures":
        run = with_edits(run, {"paper": {"table": request.table, "limit": request.limit}})
        _check_rows(run, environment)
    return ResolvedRun(run, environment)


def _settings_of(preset: str, settings: list[str], named: bool) -> list[str]:
    """Those of `settings` that are of a data set; SettingError where there are some for one that is not `named`."""
    of_preset = [setting for setting in settings if setting.startswith(f"{preset}.")]
    if of_preset and not named:
        raise SettingError(
            f"--set {of_preset[0]!r}: no {preset.upper()} is named; add --{'data' if preset == 'voc' else preset} DIR"
        )
    return [setting.removeprefix(f"{preset}.") for setting in settings if not setting.startswith(OTHERS[preset])]


def _check_training(run: RunSpec, table: str) -> None:
    """SettingError for a supervision or checkpoint of the user's that the table itself decides."""
    if run.train.supervision == "masks":
        raise SettingError("train.supervision=masks: the paper's numbers are of image-level labels; table-6 has a row of masks")
    if run.train.from_checkpoint is not None and table in NO_CHECKPOINT:
        raise SettingError(f"--checkpoint: {table} {NO_CHECKPOINT[table]}; leave it out")


def _check_rows(run: RunSpec, environment: RunEnvironment) -> None:
    """DataError where the data lack what a row of the table needs: a row may add a split, or train on masks."""
    for row in table_runs(run, environment):
        if environment.data is not None:
            check_data(row, environment.data)


def _changes(run: RunSpec, checkpoint: str | None) -> dict[str, Any]:
    """The fields that a limit changes, and the checkpoint, as edits; the user's own settings win over them."""
    train = {field: getattr(run.train, field) for field in ("iterations", *SCHEDULE)}
    train["from_checkpoint"] = checkpoint
    return {"dataset": {"max_images": run.dataset.max_images, "partial": run.dataset.partial}, "train": train}
