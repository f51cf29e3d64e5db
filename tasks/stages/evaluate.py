"""Stage `evaluate`: opens masks. Scores label maps of CAM seeds, pseudo labels and segmentation, one part per shard →
metrics.json.

metrics.json (excel-metrics/1): `results` maps a key to its `protocol` and scores; `ablation` holds the rows of the
ablation and the zero-shot presence mAP; `skipped` says what could not be scored and why, `warnings` which masks may be wrong
and why. Keys:

    seeds.<static|lvc>.<split>.<raw|affinity|par|crf>      label maps of image-level classes against the truth
    segmentation.<split>.<single_scale|multi_scale|multi_scale_crf>

Beside it: confusion.parquet (pixels by image), examples.json (the best, median and worst images) with truth/, and explored.json
(the images of the report's explorer) with explored/: copies of those images' masks, so that the report opens none.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from excel_core.config import RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.evaluation.bootstrap import confusions_by_image, scores_with_interval
from excel_core.evaluation.examples import image_scores, pick_examples, shares, spread_images
from excel_core.evaluation.protocols import seed_protocol, segmentation_protocol
from excel_core.files import read_json, write_json
from excel_core.stores import read_counts, write_counts
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.stage import Job
from tasks.inputs.images import images_of
from tasks.inputs.masks import mask_reader_of, masked_images, missing_masks
from tasks.inputs.models import classes_of
from tasks.inputs.truth_doubts import TruthDoubts, read_doubts, unscored_masks, warnings
from tasks.stages.dataset import DatasetResult
from tasks.stages.score import label_map_kinds, scored_images, scored_splits

__all__ = ["EvaluateResult", "explored_shares", "explored_splits", "input_key", "join_scores", "settings"]


class EvaluateResult(StageResult):
    """mIoU by result key, four decimals."""

    miou: dict[str, float]


def join_scores(job: Job, parts: dict[str, StageOutput], folder: Path) -> EvaluateResult:
    """Add up the parts' counts and score everything that has a truth; what has none is skipped with a word."""
    tables = [read_counts(part.folder / "confusion.parquet") for part in parts.values()]
    counts = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["result", "image"])
    names = ("background", *classes_of(job))
    results, examples, explored, skipped, doubted = {}, {}, {}, dict[str, str](), dict[str, str]()
    doubts = read_doubts(parts.values())
    for key, kind, split, protocol in _protocols(job):
        masked = [image.id for image in scored_images(job, kind, split)]
        skipped |= missing_masks(job, split)
        if not masked:
            skipped[key.rpartition(".")[0]] = f"split {split!r} has no masks in {mask_reader_of(job, split).where}"
            continue
        seen = doubts.get(split, TruthDoubts(split))
        skipped |= unscored_masks(job, seen, masked)
        doubted |= warnings(job, seen, job.result("dataset", DatasetResult).turned)
        images = [image for image in masked if image not in seen.ignored]
        if not images:
            continue
        by_image = confusions_by_image(counts[counts["result"] == key], images, len(names))
        results[key] = {"protocol": protocol | {"images": len(images)}} | scores_with_interval(by_image, names)
        if key.startswith("seeds.") or key.endswith(".single_scale"):
            iou = [score.iou for score in image_scores(by_image, len(names))]
            examples[split] = pick_examples(images, iou)
            explored[split] = spread_images(images, iou, explored_shares(job)[split])
    if not results and not parts:
        where = mask_reader_of(job, job.run.dataset.labelled_splits[-1]).where
        skipped = {"scores": f"no image has a mask in {where}; label maps need none"}
    write_counts(folder / "confusion.parquet", counts)
    write_json(folder / "examples.json", examples)
    write_json(folder / "explored.json", explored)
    _copy_truths(job, folder / "explored", explored)
    _copy_truths(job, folder / "truth", {split: [entry["id"] for entry in rows] for split, rows in examples.items()})
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


def _copy_truths(job: Job, folder: Path, ids: dict[str, list[str]]) -> None:
    for split, examples in ids.items():
        masks = mask_reader_of(job, split)
        images = {image.id: image for image in masked_images(job, split)}
        for image in (images[id] for id in examples):
            save_labels_png(folder / split / f"{image.id}.png", masks.read(image.id, image.height, image.width))


def _protocols(job: Job) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(result key, kind of label maps, split, protocol) of everything that can be scored, in the order to show it."""
    for kind in ("static", "lvc"):
        for split in scored_splits(job, kind):
            for step in label_map_kinds(job, kind):
                yield f"seeds.{kind}.{split}.{step}", kind, split, seed_protocol(job.run, kind, split, step)
    for split in scored_splits(job, "segmentation"):
        for variant in label_map_kinds(job, "segmentation"):
            protocol = segmentation_protocol(job.run, split, variant)
            yield f"segmentation.{split}.{variant}", "segmentation", split, protocol


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
