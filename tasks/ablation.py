"""Stage `ablation`: the rows of the paper's tables 3, 4 and 5 and the methods, over seeds → ablation.json.

Each row is a run of its own, of which only the sweep over thresholds is needed, so whatever rows share is computed once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.config import RunSpec
from excel_core.config.presets import with_edits
from excel_core.errors import SettingError
from excel_core.evaluation.ablation import BINS, AblationRow, ablation_rows, best_threshold, confusion_counts
from excel_core.evaluation.bootstrap import confusions_by_image, image_draws, interval, mean_iou, resampled
from excel_core.evaluation.metrics import mean_average_precision
from excel_core.files import write_json
from excel_core.stores import read_counts
from excel_core.text.class_sets import class_set
from tasks.engine.stage import Dependency, RunEnvironment, Stage, Work, always
from tasks.inputs.masks import missing_masks
from tasks.inputs.records import records

__all__ = ["STAGE"]


def build_ablation(work: Work) -> dict[str, Any]:
    """Score each row on every split and seed at its best threshold, with intervals over images."""
    splits = [split for split in work.run.dataset.val_splits if _images(work, split)]
    draws = {split: image_draws(len(_images(work, split)), work.run.ablation.resamples) for split in splits}
    result: dict[str, Any] = {"format": "excel-ablation/1", "protocol": {}, "rows": [], "presence_map": {}, "skipped": {}}
    if splits:
        result["protocol"] = _protocol(work, splits)
        result["rows"] = [_scored(work, row, draws) for row in _rows(work.run, work.place)]
        result["presence_map"] = _presence(work, splits)
    for split in work.run.dataset.val_splits:
        result["skipped"] |= missing_masks(work, split)
    write_json(work.folder / "ablation.json", result)
    return {row["name"]: round(row["miou"], 4) for row in result["rows"]}


def _scored(work: Work, row: AblationRow, draws: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    """One row: its mIoU is the mean over splits, then over seeds; thresholds are those of the whole split."""
    mious, levels, samples = {}, {}, []
    for seed in _seeds(work.run, row):
        table = read_counts(work.input(_input(row, seed)) / "levels.parquet")
        classes = work.inputs[_input(row, seed)].summary["classes"]
        for split, drawn in draws.items():
            found = table[table["split"] == split]
            mious[seed, split], level = best_threshold(found, classes)
            levels.setdefault(split, []).append(level / BINS)
            counts = confusions_by_image(confusion_counts(found, level), _images(work, split), classes + 1)
            samples.append(mean_iou(resampled(counts, drawn, classes + 1)))
    by_seed = [np.mean([mious[seed, split] for split in draws]) for seed in _seeds(work.run, row)]
    low, high = interval(np.mean(samples, axis=0))
    return {
        "group": row.group,
        "name": row.name,
        "miou": float(np.mean(by_seed)),
        "std": float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None,
        "low": low,
        "high": high,
        "seeds": len(by_seed),
        "by_split": {split: float(np.mean([mious[seed, split] for seed in _seeds(work.run, row)])) for split in draws},
        "threshold": {split: float(np.mean(found)) for split, found in levels.items()},
    }


def _protocol(work: Work, splits: Sequence[str]) -> dict[str, Any]:
    resamples = work.run.ablation.resamples
    return {
        "what": "CAMs, not refined",
        "splits": list(splits),
        "labels": "image-level ground truth",
        "refinement": "raw, best single threshold of a row, split and seed",
        "images": {split: len(_images(work, split)) for split in splits},
        "interval": f"95 %, {resamples} bootstrap resamples of the images, thresholds fixed",
    }


def _presence(work: Work, splits: Sequence[str]) -> dict[str, Any]:
    """Zero-shot mean average precision of "the image has the class"; no row changes it."""
    row = _rows(work.run, work.place)[0]
    table = read_counts(work.input(_input(row, _seeds(work.run, row)[0])) / "presence.parquet")
    by_split = {}
    for split in splits:
        found = table[table["split"] == split].drop(columns="split").set_index("image").loc[_images(work, split)]
        classes = {record.id: record.classes for record in records(work, split)}
        truth = np.zeros(found.shape, dtype=bool)
        for index, image in enumerate(found.index):
            truth[index, list(classes[image])] = True
        by_split[split] = mean_average_precision(found.to_numpy(), truth)
    return {"mean": float(np.mean(list(by_split.values()))), "by_split": by_split}


def _images(work: Work, split: str) -> list[str]:
    """Ids of the split's scored images, in order."""
    row = _rows(work.run, work.place)[0]
    table: pd.DataFrame = read_counts(work.input(_input(row, _seeds(work.run, row)[0])) / "presence.parquet")
    return table.loc[table["split"] == split, "image"].tolist() if len(table) else []


def _rows(run: RunSpec, place: RunEnvironment) -> list[AblationRow]:
    classes = class_set(run, place.data).class_names
    return ablation_rows(run, len(classes) * run.describe.n)


def _seeds(run: RunSpec, row: AblationRow) -> list[int]:
    return list(range(run.ablation.seeds if row.seeded else 1))


def _input(row: AblationRow, seed: int) -> str:
    return f"{row.group}: {row.name}, seed {seed}"


def _needs(run: RunSpec, place: RunEnvironment) -> dict[str, Dependency]:
    """A sweep a row and seed; seeds count on from the run's own. SettingError for a run that is trained on true masks."""
    if run.train.supervision == "masks":
        raise SettingError(
            "train.supervision=masks: the ablation is about image-level labels, and would mix the two; leave one of them out"
        )
    needs = {}
    for row in _rows(run, place):
        for seed in _seeds(run, row):
            seeds = {"knowledge": {"seed": run.knowledge.seed + seed}, "train": {"seed": run.train.seed + seed}}
            needs[_input(row, seed)] = Dependency("sweep_lvc" if row.learnt else "sweep", with_edits(row.run, seeds))
    return needs


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.ablation.model_dump(mode="json")


STAGE = Stage("ablation", ("dataset", "knowledge"), _spec, build_ablation, needs=_needs, reads_data=True, sees_masks=always)
