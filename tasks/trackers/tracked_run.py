"""What a tracker is told of a run: numbers and settings of the store, no paths and no pictures."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from excel_core.config.setting_text import without_folders
from excel_core.config.unused import leaves
from excel_core.errors import SettingError
from excel_core.evaluation.protocols import Protocol
from excel_core.files import read_json
from excel_core.training.loop import LossRow
from tasks.history.run_record import RunRecord
from tasks.photos.trained import committed_output

__all__ = ["Point", "RunInfo", "TrackedRun", "loss_points", "run_info", "tracked_run"]


@dataclass(frozen=True)
class Point:
    """Values at a number of iterations done."""

    iteration: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class RunInfo:
    """settings: dotted name → text. goes_on: ids of runs, oldest first; what a tracker holds of one of them is gone on with."""

    id: str
    name: str
    settings: Mapping[str, str]
    goes_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrackedRun:
    """points: in the order of their iterations; scores at the last. protocols: of each score."""

    info: RunInfo
    points: tuple[Point, ...]
    protocols: Mapping[str, Protocol]


def run_info(record: RunRecord, goes_on: tuple[str, ...] = ()) -> RunInfo:
    """What a tracker shows of a run beside its numbers."""
    settings = {name: without_folders(str(value)) for name, value in leaves(record.run)}
    return RunInfo(record.id, record.flow_run_name or record.id, settings, goes_on)


def tracked_run(record: RunRecord) -> TrackedRun:
    """All that is told of a run whose stages are complete. SettingError where it has neither losses nor scores."""
    losses = tuple(_losses(record)) if "train" in record.own else ()
    curve = tuple(_curve(record)) if "curve" in record.own else ()
    scores, protocols = _scores(record) if "evaluate" in record.own else ({}, {})
    if not losses and not scores:
        raise SettingError(f"run {record.id} has neither a training nor scores; its stages: {', '.join(record.own)}")
    last_iteration = max((point.iteration for point in (*losses, *curve)), default=0)
    points = sorted((*losses, *curve, *([Point(last_iteration, scores)] if scores else [])), key=lambda point: point.iteration)
    return TrackedRun(run_info(record), tuple(points), protocols)


def loss_points(rows: Iterable[LossRow], columns: Iterable[str]) -> list[Point]:
    """Losses as they are told, by their `columns` (LossRow.columns)."""
    names = [name for name in columns if name != "iteration"]
    return [Point(row.iteration + 1, {f"train/{name}": float(getattr(row, name)) for name in names}) for row in rows]


def _losses(record: RunRecord) -> Iterator[Point]:
    table = pd.read_csv(committed_output(record, "train").folder / "losses.csv")
    for row in table.to_dict("records"):
        values = {f"train/{name}": float(value) for name, value in row.items() if name != "iteration"}
        yield Point(int(row["iteration"]) + 1, values)


def _curve(record: RunRecord) -> Iterator[Point]:
    for row in read_json(committed_output(record, "curve").folder / "curve.json")["rows"]:
        kinds = ("pseudo_labels", "segmentation")
        yield Point(row["iteration"], {f"curve/{row['split']}/{kind}": row[kind] for kind in kinds if row[kind] is not None})


def _scores(record: RunRecord) -> tuple[dict[str, float], dict[str, Protocol]]:
    results = read_json(committed_output(record, "evaluate").folder / "metrics.json")["results"]
    scores = {f"mIoU/{key.replace('.', '/')}": result for key, result in results.items() if result["miou"] is not None}
    protocols = {key: {name: str(words) for name, words in result["protocol"].items()} for key, result in scores.items()}
    return {key: result["miou"] for key, result in scores.items()}, protocols
