"""From a user's settings to the runs of a table of the paper, one for each data set. Knows no Prefect."""

from pathlib import Path
from typing import Any, Literal

from excel_core.config import RunSpec
from excel_core.config.presets import with_edits
from excel_core.errors import SettingError
from excel_core.models.published_checkpoint import read_published
from excel_core.paper.tables import limited
from excel_core.text.class_sets import class_set
from flows.settings import check_data, make_environment, make_run
from tasks.engine.stage import RunEnvironment
from tasks.paper import table_runs

__all__ = ["Paper", "paper_runs"]

Paper = Literal["table-1", "table-2", "table-3", "table-4", "table-5", "table-6", "table-7", "figures"]
WITH_COCO = ("table-1", "table-7")
OTHERS = {"voc": "coco.", "coco": "voc."}  # what begins a setting of the other data set
NO_CHECKPOINT = {"table-5": "needs no training", "table-7": "measures the training itself"}


def paper_runs(
    table: str,
    data: str | None,
    coco: str | None,
    checkpoint: str | None,
    limit: int | None,
    method: str,
    store: str | None,
    clip: str | None,
    device: str,
    gpus: int,
    settings: list[str],
) -> list[tuple[RunSpec, RunEnvironment]]:
    """A run and its place for each data set that is named. `settings` are of all of them, but one that begins with `voc.` or
    `coco.` is of that data set alone. Anything wrong is refused here, before work starts."""
    if coco is not None and table not in WITH_COCO:
        raise SettingError(f"--coco: {table} is about VOC alone; COCO stands in {' and '.join(WITH_COCO)}")
    if data is None and coco is None:
        raise SettingError("name the data: --data DIR for PASCAL VOC 2012, --coco DIR for MS COCO")
    told = [setting for setting in settings if "paper." in setting.partition("=")[0]]
    if told:
        raise SettingError(f"--set {told[0]}: the table and --limit are told by name; leave the setting out")
    classes = read_published(Path(checkpoint)).sizes.classes if checkpoint else None
    runs = []
    for preset, folder in (("voc", data), ("coco", coco)):
        own = _settings_of(preset, settings, folder is not None)
        if folder is not None:
            run = make_run(preset, method, [], clip)
            run = limited(run, limit) if limit else run
            fits = classes == len(class_set(run, Path(folder)).class_names)
            edited = make_run(preset, method, own, clip, _changes(run, checkpoint if fits else None))
            _check_training(edited, table)
            place = make_environment(edited, folder, store, device, gpus)
            if table != "figures":
                edited = with_edits(edited, {"paper": {"table": table, "limit": limit}})
                _check_rows(edited, place)
            runs.append((edited, place))
    if classes is not None and all(run.train.from_checkpoint is None for run, _ in runs):
        raise SettingError(f"--checkpoint {checkpoint}: is of {classes} classes, of none of the data sets that are named")
    return runs


def _settings_of(preset: str, settings: list[str], named: bool) -> list[str]:
    """Those of `settings` that are of a data set; SettingError where there are some for one that is not `named`."""
    alone = [setting for setting in settings if setting.startswith(f"{preset}.")]
    if alone and not named:
        raise SettingError(
            f"--set {alone[0]!r}: no {preset.upper()} is named; add --{'data' if preset == 'voc' else preset} DIR"
        )
    return [setting.removeprefix(f"{preset}.") for setting in settings if not setting.startswith(OTHERS[preset])]


def _check_training(run: RunSpec, table: str) -> None:
    """SettingError for a supervision or checkpoint of the user's that the table itself decides."""
    if run.train.supervision == "masks":
        raise SettingError("train.supervision=masks: the paper's numbers are of image-level labels; table-6 has a row of masks")
    if run.train.from_checkpoint is not None and table in NO_CHECKPOINT:
        raise SettingError(f"--checkpoint: {table} {NO_CHECKPOINT[table]}; leave it out")


def _check_rows(run: RunSpec, place: RunEnvironment) -> None:
    """DataError where the data lack what a row of the table needs: a row may add a split, or train on masks."""
    for row in table_runs(run, place):
        if place.data is not None:
            check_data(row, place.data)


def _changes(run: RunSpec, checkpoint: str | None) -> dict[str, Any]:
    """The fields that a limit changes, and the checkpoint, as edits; the user's own settings win over them."""
    train = {field: getattr(run.train, field) for field in ("iterations", "warmup", "dynamic_from", "own_argmax_from")}
    train["from_checkpoint"] = checkpoint
    return {"dataset": {"max_images": run.dataset.max_images, "partial": run.dataset.partial}, "train": train}
