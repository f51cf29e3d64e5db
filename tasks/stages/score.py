"""Stage `score`: opens masks. Scores the training-free label maps of `refine`, raw and refined, as soon as they are there, one
part per shard → score.json. `evaluate` gives the same numbers at the end of a run.

score.json (excel-score/1): `preset`, `method`, `clip`; `results`, `skipped` and `warnings` as in metrics.json, of the keys

    seeds.static.<split>.<raw|affinity|par|crf>

Beside it: confusion.parquet (pixels by image), from which two runs are compared over the same resampled images.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.files import write_json
from excel_core.stores import write_counts
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.stage import Job, Part
from tasks.inputs.models import classes_of
from tasks.inputs.truth_doubts import read_doubts
from tasks.stages.cams import ShardResult
from tasks.stages.dataset import DatasetResult
from tasks.stages.label_scores import read_part_counts, score_maps, score_parts, score_shard, seed_maps

__all__ = ["ScoreResult", "input_key", "join_seed_scores", "score_seed_shard", "seed_parts", "settings"]


class ScoreResult(StageResult):
    """mIoU by result key, four decimals."""

    miou: dict[str, float]


def seed_parts(job: Job) -> list[Part]:
    """A part depends on the label maps of the same shard and on its masks."""
    return score_parts(_of_seeds(job))


def score_seed_shard(job: Job, part: Part, folder: Path) -> ShardResult:
    """Compare each label map with its mask → confusion.parquet, truth.json."""
    return score_shard(_of_seeds(job), part, folder)


def join_seed_scores(job: Job, parts: dict[str, StageOutput], folder: Path) -> ScoreResult:
    """Add up the parts' counts and score every step of the refinement; what has no truth is skipped with a word."""
    job, counts = _of_seeds(job), read_part_counts(parts)
    scores = score_maps(job, seed_maps(job, "static"), counts, read_doubts(parts.values()))
    write_counts(folder / "confusion.parquet", counts)
    names = {"preset": job.run.preset, "method": job.run.method, "clip": job.run.clip.model}
    told = {"results": scores.results, "skipped": scores.skipped, "warnings": scores.warnings}
    document = {"format": "excel-score/1"} | names | told
    write_json(folder / "score.json", document)
    return ScoreResult(miou={key: round(result["miou"], 4) for key, result in scores.results.items()})


def _of_seeds(job: Job) -> Job:
    """The job of a run that evaluates its training-free label maps alone, whatever else the run's own evaluation scores."""
    evaluate = job.run.evaluate.model_copy(update={"kinds": ("static",), "ablation": False})
    return replace(job, run=job.run.model_copy(update={"evaluate": evaluate}))


def input_key(job: Job) -> dict[str, Any]:
    """Beside the parts: the classes' names, the steps of the label maps, and which photos viewers turn."""
    return {
        "classes": classes_of(job),
        "steps": job.inputs["refine"].result["steps"],
        "turned": job.result("dataset", DatasetResult).turned,
    }


def settings(run: RunSpec) -> dict[str, Any]:
    """What is scored, and what the protocols say of it."""
    return {
        "seed_splits": run.dataset.seed_splits,
        "max_images": run.evaluate.max_images,
        "cams": run.cams.model_dump(mode="json"),
        "refine": run.refine.model_dump(mode="json"),
        "names": [run.preset, run.method, run.clip.model],
    }
