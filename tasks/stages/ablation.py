"""Stage `ablation`: the rows of the paper's tables 3, 4 and 5, the methods and the upgrades, over seeds → ablation.json.

Each row is a run of its own, of which only the sweep over thresholds is needed, or the scores of its pseudo labels, so whatever
rows share is computed once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.cams.pseudo_labels import step_names
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
    score_label_maps,
)
from excel_core.evaluation.bootstrap import confusions_by_image, image_draws, paired_difference
from excel_core.evaluation.examples import per_image_miou
from excel_core.evaluation.label_quality import rank_correlation
from excel_core.evaluation.protocols import WITH_SAM, refinement_words
from excel_core.files import write_json
from excel_core.safe_csv import read_rows
from excel_core.stores import read_counts
from excel_core.text.class_sets import class_set
from tasks.engine.output import StageResult
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.images import images_of
from tasks.inputs.masks import masked_images, missing_masks
from tasks.inputs.models import classes_of
from tasks.stages.quality import QUALITY_CSV, QualityResult
from tasks.stages.sweep import SweepResult

EXCEL = tuple(f"excel:{variant}" for variant in METHODS["excel"])

__all__ = ["AblationResult", "score_rows", "settings", "sweeps"]

Draws = dict[str, NDArray[np.int64]]  # by split
Scores = dict[str, list[ThresholdScore]]  # by split, one per seed
RANKED = "scores of the ranked labels"


class AblationResult(StageResult):
    """mIoU by row, four decimals."""

    miou: dict[str, float]


def sweeps(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """A sweep, or scores of pseudo labels, for each row and seed; seeds count on from the run's own. SettingError for a run
    trained on true masks."""
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
            dependencies[_sweep_name(row, seed)] = _scores_of(row, with_edits(row.run, seeds))
    return dependencies | _ranking_inputs(run)


def _scores_of(row: AblationRow, variant: RunSpec) -> Dependency:
    if row.refined:
        return Dependency("evaluate", with_edits(variant, {"evaluate": {"kinds": ("static",), "ablation": False}}))
    return Dependency("sweep_lvc" if row.learnt else "sweep", variant)


def _ranking_inputs(run: RunSpec) -> dict[str, Dependency]:
    """The ranking of the run's pseudo labels and their scores, where the ranking itself is scored."""
    if "upgrades" not in run.ablation.groups or not run.quality.enabled:
        return {}
    scored = with_edits(run, {"evaluate": {"kinds": ("static", "lvc"), "ablation": False}})
    return {"quality": Dependency("quality", run), RANKED: Dependency("evaluate", scored)}


def score_rows(job: Job, folder: Path) -> AblationResult:
    """Score each row on every split and seed at its best threshold, with intervals over images."""
    splits = [split for split in job.run.dataset.val_splits if _images(job, split)]
    draws = _draws(job, {split: _images(job, split) for split in splits})
    seed_draws = _draws(job, {split: _seed_images(job, split) for split in job.run.dataset.seed_splits})
    document: dict[str, Any] = {"format": "excel-ablation/1", "protocol": {}, "rows": [], "presence_map": {}, "skipped": {}}
    if splits:
        document["protocol"] = _protocol(job, splits)
        document["rows"] = _all_scored(job, draws, seed_draws)
        document["presence_map"] = _presence(job, splits)
    if "quality" in job.inputs:
        document["ranking"] = _ranking(job)
    for split in job.run.dataset.val_splits:
        document["skipped"] |= missing_masks(job, split)
    write_json(folder / "ablation.json", document)
    return AblationResult(miou={_title(row): round(row["miou"], 4) for row in document["rows"]})


def _title(row: dict[str, Any]) -> str:
    """Upgrades have the same names in two groups."""
    return f"{row['group']}: {row['name']}" if row["group"].startswith("upgrades") else str(row["name"])


def _draws(job: Job, images: dict[str, list[str]]) -> Draws:
    return {split: image_draws(len(ids), job.run.ablation.resamples) for split, ids in images.items() if ids}


def _all_scored(job: Job, draws: Draws, seed_draws: Draws) -> list[dict[str, Any]]:
    """Every row's result; an upgrade's also says how far it is from the run as it is."""
    results, first = [], dict[str, Scores]()
    for row in _rows(job.run, job.environment):
        scores = _scored_labels(job, row, seed_draws) if row.refined else _scored(job, row, draws)
        if not scores:
            continue
        result = row_result(row, scores)
        if row.group.startswith("upgrades") and first.setdefault(row.group, scores) is not scores:
            result["difference"] = paired_difference(first[row.group], scores)
        results.append(result)
    return results


def _scored_labels(job: Job, row: AblationRow, draws: Draws) -> Scores:
    """The pseudo labels of each seed split, after the last step."""
    scores: Scores = {split: [] for split in draws}
    for seed in _seeds(job.run, row):
        counts = read_counts(job.folder(_sweep_name(row, seed)) / "confusion.parquet")
        for split, drawn in draws.items():
            of_split = counts[counts["result"] == f"seeds.static.{split}.{step_names(row.run.refine)[-1]}"]
            scores[split].append(score_label_maps(of_split, _seed_images(job, split), len(classes_of(job)), drawn))
    return scores


def _ranking(job: Job) -> dict[str, Any]:
    """How well the score without a truth ranks images by the true IoU of their pseudo labels, by seed split."""
    rows = read_rows(job.folder("quality") / QUALITY_CSV, job.result("quality", QualityResult).images)
    scores = {row["image"]: float(row["score"]) for row in rows}
    counts, classes = read_counts(job.folder(RANKED) / "confusion.parquet"), len(classes_of(job)) + 1
    spearman = {}
    for split in job.run.dataset.seed_splits:
        images = [image for image in _seed_images(job, split) if image in scores]
        of_split = counts[counts["result"] == f"seeds.lvc.{split}.{step_names(job.run.refine)[-1]}"]
        truth = per_image_miou(confusions_by_image(of_split, images, classes), classes)
        spearman[split] = rank_correlation(np.array([scores[image] for image in images]), truth)
    return {"what": "quality score against true IoU", "spearman": spearman}


def _seed_images(job: Job, split: str) -> list[str]:
    """Ids of a seed split's scored images."""
    return [image.id for image in masked_images(job, split)]


def _scored(job: Job, row: AblationRow, draws: Draws) -> Scores:
    scores: Scores = {split: [] for split in draws}
    for seed in _seeds(job.run, row):
        sweep = _sweep_name(row, seed)
        levels = read_counts(job.folder(sweep) / "levels.parquet")
        classes = job.result(sweep, SweepResult).classes
        for split, drawn in draws.items():
            of_split = levels[levels["split"] == split]
            scores[split].append(score_at_best_threshold(of_split, _images(job, split), classes, drawn))
    return scores


def _protocol(job: Job, splits: Sequence[str]) -> dict[str, Any]:
    return {
        "what": "CAMs, not refined",
        "splits": list(splits),
        "labels": "image-level ground truth",
        "refinement": "raw, best single threshold of a row, split and seed",
        "images": {split: len(_images(job, split)) for split in splits},
        "interval": f"95 %, {job.run.ablation.resamples} bootstrap resamples of the images, thresholds fixed",
    } | (_protocol_of_labels(job.run) if "upgrades" in job.run.ablation.groups else {})


def _protocol_of_labels(run: RunSpec) -> dict[str, str]:
    """Of the upgrades' pseudo labels."""
    words = refinement_words(run, [step for step in step_names(run.refine) if step != "votes"][-1])
    splits = ", ".join(run.dataset.seed_splits)
    return {"pseudo labels": f"static CAMs of image-level ground truth, {words}, split {splits}", "+SAM": WITH_SAM}


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
