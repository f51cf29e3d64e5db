"""Stage `evaluate`: opens masks. Scores label maps of CAM seeds, pseudo labels and segmentation, one part per shard →
metrics.json.

metrics.json (excel-metrics/1): `results` maps a key to its `protocol` and scores; `ablation` holds the rows of the
ablation and the zero-shot presence mAP; `skipped` says what could not be scored and why, `warnings` which masks may be wrong
and why. Keys:

    seeds.<static|lvc>.<split>.<raw|affinity|par|crf>      label maps of image-level classes against the truth
    segmentation.<split>.<single_scale|multi_scale|multi_scale_crf>

Beside it: confusion.parquet (pixels by image), examples.json (the best, median and worst images), explored.json (the images of
the report's explorer), and truth/: copies of the masks of both, so that the report opens none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.evaluation.examples import image_scores, pick_examples, shares, spread_images
from excel_core.evaluation.protocols import segmentation_protocol
from excel_core.files import read_json, write_json
from excel_core.stores import write_counts
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.images import images_of
from tasks.inputs.masks import mask_reader_of, masked_images
from tasks.inputs.models import classes_of
from tasks.inputs.truth_doubts import read_doubts
from tasks.stages.dataset import DatasetResult
from tasks.stages.label_scores import (
    MAKERS,
    ScoredMaps,
    label_map_kinds,
    read_part_counts,
    score_maps,
    scored_splits,
    seed_maps,
)

__all__ = [
    "EvaluateResult",
    "explored_shares",
    "explored_splits",
    "input_key",
    "join_scores",
    "label_maps_to_score",
    "settings",
]


class EvaluateResult(StageResult):
    """mIoU by result key, four decimals."""

    miou: dict[str, float]


def label_maps_to_score(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """The stages that make the label maps, and the ablation under the run's own seed where it is asked for."""
    dependencies = {MAKERS[kind]: Dependency(MAKERS[kind], run) for kind in run.evaluate.kinds}
    if run.evaluate.ablation:
        changes = {"groups": ("components", "calibration"), "own_trainings": False, "seeds": 1}
        variant = run.model_copy(update={"ablation": run.ablation.model_copy(update=changes)})
        dependencies["ablation"] = Dependency("ablation", variant)
    return dependencies


def join_scores(job: Job, parts: dict[str, StageOutput], folder: Path) -> EvaluateResult:
    """Add up the parts' counts and score everything that has a truth; what has none is skipped with a word."""
    counts = read_part_counts(parts)
    results, by_image, skipped, doubted = score_maps(job, _scored_maps(job), counts, read_doubts(parts.values()))
    examples, explored = {}, {}
    for key, (split, images, confusions) in by_image.items():
        if key.startswith("seeds.") or key.endswith(".single_scale"):
            iou = [score.iou for score in image_scores(confusions, len(classes_of(job)) + 1)]
            examples[split] = pick_examples(images, iou)
            explored[split] = spread_images(images, iou, explored_shares(job)[split])
    if not results and not parts:
        where = mask_reader_of(job, job.run.dataset.labelled_splits[-1]).where
        skipped = {"scores": f"no image has a mask in {where}; label maps need none"}
    write_counts(folder / "confusion.parquet", counts)
    write_json(folder / "examples.json", examples)
    write_json(folder / "explored.json", explored)
    _copy_truths(job, folder / "truth", {s: {*explored[s], *(row["id"] for row in rows)} for s, rows in examples.items()})
    write_json(folder / "metrics.json", _metrics(job, results, skipped, doubted))
    return EvaluateResult(miou={key: round(result["miou"], 4) for key, result in results.items()})


def _metrics(job: Job, results: dict[str, Any], skipped: dict[str, str], doubted: dict[str, str]) -> dict[str, Any]:
    ablation = read_json(job.folder("ablation") / "ablation.json") if "ablation" in job.inputs else {}
    if ablation and not ablation["rows"]:
        skipped, ablation = skipped | {"ablation": "no split has masks"}, {}
    return {
        "format": "excel-metrics/1",
        "preset": job.run.preset,
        "method": job.run.method,
        "clip": job.run.clip.model,
        "supervision": job.run.train.supervision,
        "results": results,
        "ablation": {key: ablation[key] for key in ("protocol", "rows", "presence_map")} if ablation else {},
        "skipped": skipped,
        "warnings": doubted,
    }


def _copy_truths(job: Job, folder: Path, ids: dict[str, set[str]]) -> None:
    for split, shown in ids.items():
        masks = mask_reader_of(job, split)
        for image in (image for image in masked_images(job, split) if image.id in shown):
            save_labels_png(folder / split / f"{image.id}.png", masks.read(image.id, image.height, image.width))


def _scored_maps(job: Job) -> Iterator[ScoredMaps]:
    """Everything that can be scored, in the order to show it."""
    yield from seed_maps(job, "static")
    yield from seed_maps(job, "lvc")
    for split in scored_splits(job, "segmentation"):
        for variant in label_map_kinds(job, "segmentation"):
            protocol = segmentation_protocol(job.run, split, variant)
            yield ScoredMaps(f"segmentation.{split}.{variant}", "segmentation", split, protocol)


def explored_splits(run: RunSpec) -> Sequence[str]:
    """Splits whose images the report's explorer shows: those of seeds, and those of segmentation where it is trained."""
    seeds = run.dataset.seed_splits or (run.dataset.train_split,)
    return tuple(dict.fromkeys((*seeds, *(run.dataset.val_splits if run.train.enabled else ()))))


def explored_shares(job: Job) -> dict[str, int]:
    """How many images of each of them the explorer shows at most."""
    return shares({split: len(images_of(job, split)) for split in explored_splits(job.run)}, job.run.report.images)


def input_key(job: Job) -> dict[str, Any]:
    """Beside the parts: names, the ablation, which photos viewers turn, and how many truths are copied."""
    return {
        "classes": classes_of(job),
        "ablation": job.inputs["ablation"].content if "ablation" in job.inputs else None,
        "turned": job.result("dataset", DatasetResult).turned,
        "explored": explored_shares(job),
    }


def settings(run: RunSpec) -> dict[str, Any]:
    """What is scored, and what the protocols say of it."""
    return {
        "seed_splits": run.dataset.seed_splits,
        "val_splits": run.dataset.val_splits,
        "evaluate": run.evaluate.model_dump(mode="json"),
        "predict": run.predict.model_dump(mode="json"),
        "refine": run.refine.model_dump(mode="json"),
        "mirror": run.dynamic.mirror,
        "names": [run.preset, run.method, run.clip.model, run.train.supervision, run.train.from_checkpoint is not None],
    }
