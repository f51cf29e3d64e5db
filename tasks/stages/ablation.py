"""Stage `ablation`: the rows of the paper's tables 3, 4 and 5 and the methods, over seeds → ablation.json.

Each row is a run of its own, of which only the sweep over thresholds is needed, so whatever rows share is computed once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.config import RunSpec
from excel_core.config.methods import METHODS
from excel_core.config.presets import with_edits
from excel_core.errors import SettingError
from excel_core.evaluation.ablation import (
    AblationRow,
    ThresholdScore,
    ablation_rows,
    presence_map,
    row_result,
    score_at_best_threshold,
)
from excel_core.evaluation.bootstrap import image_draws
from excel_core.files import write_json
from excel_core.stores import read_counts
from excel_core.text.class_sets import class_set
from tasks.engine.output import StageResult
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.images import images_of
from tasks.inputs.masks import missing_masks
from tasks.stages.sweep import SweepResult

EXCEL = tuple(f"excel:{variant}" for variant in METHODS["excel"])

__all__ = ["AblationResult", "score_rows", "settings", "sweeps"]


class AblationResult(StageResult):
    """mIoU by row, four decimals."""

    miou: dict[str, float]


def sweeps(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """A sweep for each row and seed; seeds count on from the run's own. SettingError for a run trained on true masks."""
    if run.train.supervision == "masks":
        raise SettingError(
            "train.supervision=masks: the ablation is about image-level labels, and would mix the two; leave one of them out"
        )
    if run.cams.producer != "patch_text" or not run.train.enabled:
        got = f"{run.method} with train.enabled={str(run.train.enabled).lower()}"
        raise SettingError(
            f"the ablation is about parts of the method excel and its training, got {got}; valid methods: {', '.join(EXCEL)}"
        )
    dependencies = {}
    for row in _rows(run, environment):
        for seed in _seeds(run, row):
            seeds = {"knowledge": {"seed": run.knowledge.seed + seed}, "train": {"seed": run.train.seed + seed}}
            stage = "sweep_lvc" if row.learnt else "sweep"
            dependencies[_sweep_name(row, seed)] = Dependency(stage, with_edits(row.run, seeds))
    return dependencies


def score_rows(job: Job, folder: Path) -> AblationResult:
    """Score each row on every split and seed at its best threshold, with intervals over images."""
    splits = [split for split in job.run.dataset.val_splits if _images(job, split)]
    draws = {split: image_draws(len(_images(job, split)), job.run.ablation.resamples) for split in splits}
    result: dict[str, Any] = {"format": "excel-ablation/1", "protocol": {}, "rows": [], "presence_map": {}, "skipped": {}}
    if splits:
        result["protocol"] = _protocol(job, splits)
        result["rows"] = [_scored(job, row, draws) for row in _rows(job.run, job.environment)]
        result["presence_map"] = _presence(job, splits)
    for split in job.run.dataset.val_splits:
        result["skipped"] |= missing_masks(job, split)
    write_json(folder / "ablation.json", result)
    return AblationResult(miou={row["name"]: round(row["miou"], 4) for row in result["rows"]})


def _scored(job: Job, row: AblationRow, draws: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    scores: dict[str, list[ThresholdScore]] = {split: [] for split in draws}
    for seed in _seeds(job.run, row):
        sweep = _sweep_name(row, seed)
        levels = read_counts(job.folder(sweep) / "levels.parquet")
        classes = job.result(sweep, SweepResult).classes
        for split, drawn in draws.items():
            of_split = levels[levels["split"] == split]
            scores[split].append(score_at_best_threshold(of_split, _images(job, split), classes, drawn))
    return row_result(row, scores)


def _protocol(job: Job, splits: Sequence[str]) -> dict[str, Any]:
    return {
        "what": "CAMs, not refined",
        "splits": list(splits),
        "labels": "image-level ground truth",
        "refinement": "raw, best single threshold of a row, split and seed",
        "images": {split: len(_images(job, split)) for split in splits},
        "interval": f"95 %, {job.run.ablation.resamples} bootstrap resamples of the images, thresholds fixed",
    }


def _presence(job: Job, splits: Sequence[str]) -> dict[str, Any]:
    """Zero-shot mean average precision of "the image has the class"; no row changes it."""
    table = _presence_table(job)
    by_split = {}
    for split in splits:
        scores = table[table["split"] == split].drop(columns="split").set_index("image").loc[_images(job, split)]
        classes = {image.id: image.classes for image in images_of(job, split)}
        by_split[split] = presence_map(scores.to_numpy(), [classes[image] for image in scores.index])
    return {"mean": float(np.mean(list(by_split.values()))), "by_split": by_split}


def _images(job: Job, split: str) -> list[str]:
    """Ids of the split's scored images, in order."""
    table = _presence_table(job)
    return table.loc[table["split"] == split, "image"].tolist() if len(table) else []


def _presence_table(job: Job) -> pd.DataFrame:
    """Of the first row: they are all the same."""
    row = _rows(job.run, job.environment)[0]
    return read_counts(job.folder(_sweep_name(row, _seeds(job.run, row)[0])) / "presence.parquet")


def _rows(run: RunSpec, environment: RunEnvironment) -> list[AblationRow]:
    classes = class_set(run, environment.data).class_names
    return ablation_rows(run, len(classes) * run.describe.n)


def _seeds(run: RunSpec, row: AblationRow) -> list[int]:
    return list(range(run.ablation.seeds if row.seeded else 1))


def _sweep_name(row: AblationRow, seed: int) -> str:
    return f"{row.group}: {row.name}, seed {seed}"


def settings(run: RunSpec) -> dict[str, Any]:
    """Rows, seeds and resamples."""
    return run.ablation.model_dump(mode="json")
