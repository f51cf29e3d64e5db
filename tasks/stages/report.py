"""Stage `report`: what the other stages left, as a self-contained page. Under the mask guard: the truths it shows are
copies that evaluation made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from artifacts.charts import draw_losses
from artifacts.knowledge_view import attribute_rows, attributes_are, knowledge_map
from artifacts.page import template_files
from artifacts.report import write_report
from artifacts.view import DoubtRow, GalleryItem, QualityRow, ReportView, SegmentedItem, StageRow
from excel_core.config import RunSpec
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import SettingError
from excel_core.evaluation.metrics import confusion_of_counts
from excel_core.files import read_json
from excel_core.safe_csv import read_rows
from excel_core.stores import CamReader, read_counts
from tasks.engine.fingerprint import files_fingerprint
from tasks.engine.output import StageOutput, StageResult, read_marker
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.images import ImageRecord, images_of
from tasks.inputs.models import load_knowledge
from tasks.stages.dataset import left_out_told
from tasks.stages.explored_images import explored_images, explored_note
from tasks.stages.label_scores import MAKERS
from tasks.stages.quality import DOUBTS_CSV, QUALITY_CSV, QualityResult, quality_of_run
from tasks.stages.refine import LabelsResult, step_folder
from tasks.stages.train import TRAINED_STAGES, TrainResult

__all__ = ["ReportResult", "make_report", "make_view", "outside", "settings", "stage_row", "trained_results_and_quality"]


class ReportResult(StageResult):
    """The page's file."""

    page: str


def trained_results_and_quality(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """Where the run trains a segmenter, that and what it makes, and the learning curve, where segmenters were kept for it; the
    ranking, where it is asked for. SettingError for a run that does not score everything."""
    needed_kinds = MAKERS if run.train.enabled else ("static",)
    missing = [kind for kind in needed_kinds if kind not in run.evaluate.kinds]
    if missing:
        raise SettingError(f"evaluate.kinds={','.join(run.evaluate.kinds)}: a report needs {', '.join(missing)} too")
    ranking = quality_of_run(run, environment)
    if not run.train.enabled:
        return ranking
    trained = (*TRAINED_STAGES, *(("curve",) if run.train.keep_every is not None else ()))
    return {name: Dependency(name, run) for name in trained} | ranking


def make_report(job: Job, folder: Path) -> ReportResult:
    """Write index.html, the loss curve as a picture of its own, and images/ where the page cannot hold all images."""
    view = make_view(job)
    write_report(folder, view)
    if view.losses is not None and len(view.losses):
        draw_losses(folder / "losses.png", view.losses)
    return ReportResult(page="index.html")


def make_view(job: Job, cached: frozenset[str] = frozenset()) -> ReportView:
    """Everything the report and the Prefect artifacts show; `cached` names the stages that a run found complete."""
    run, store = job.run, load_knowledge(job)
    metrics = read_json(job.folder("evaluate") / "metrics.json")
    examples = read_json(job.folder("evaluate") / "examples.json")
    per_split = _share(run, run.dataset.val_splits)
    trained = "train" in job.inputs
    splits = run.dataset.val_splits if trained else ()
    segmented = [item for split in splits for item in _segmented(job, split, examples, per_split)]
    return ReportView(
        title=f"excel {run.preset}" + (", fully supervised" if run.train.supervision == "masks" else ""),
        preset=run.preset,
        method=run.method,
        clip=run.clip.model,
        metrics=metrics,
        stages=tuple(stage_row(output, output.stage in cached) for output in job.inputs.values()),
        gallery=tuple(item for split in _seeds(run) for item in _gallery(job, split, examples, store.class_names)),
        segmented=tuple(segmented),
        losses=pd.read_csv(job.folder("train") / "losses.csv") if trained else None,
        given_segmenter=job.result("train", TrainResult).source if trained else "",
        left_out=tuple(left_out_told(job.inputs["dataset"])),
        attributes=tuple(attribute_rows(store, run.knowledge)),
        spec=run.model_dump(mode="json"),
        class_names=store.class_names,
        confusion=_confusion(job, metrics, len(store.class_names) + 1),
        knowledge_map=knowledge_map(store),
        attributes_are=attributes_are(run.knowledge),
        curve=read_json(job.folder("curve") / "curve.json") if "curve" in job.inputs else {},
        explored=tuple(explored_images(job)),
        explored_note=explored_note(job),
        background_power=run.refine.background_power,
        **(_quality(job) if "quality" in job.inputs else {}),
    )


def _quality(job: Job) -> dict[str, Any]:
    """What a person should look at first."""
    result, count = job.result("quality", QualityResult), job.run.quality.listed
    scores, doubts = (read_rows(job.folder("quality") / name, count) for name in (QUALITY_CSV, DOUBTS_CSV))
    quality = [
        QualityRow(image, float(score), {k: float(v) for k, v in rest.items()}) for image, score, rest in map(_split, scores)
    ]
    doubtful = ""
    if doubts:
        doubtful = (
            f", and {len(doubts)} of {result.doubtful_given + result.doubtful_missing:,} doubtful labels: "
            f"{result.doubtful_given:,} given but hardly seen, {result.doubtful_missing:,} seen but not given"
        )
    return {
        "quality": tuple(quality),
        "doubts": tuple(DoubtRow(row["image"], row["class"], row["label"], float(row["rank"])) for row in doubts),
        "quality_note": f"The first {len(quality)} of {result.images:,} images (mean score {result.mean:.3f}){doubtful}.",
    }


def _split(row: dict[str, str]) -> tuple[str, str, dict[str, str]]:
    return row["image"], row["score"], {name: value for name, value in row.items() if name not in ("image", "score")}


def _seeds(run: RunSpec) -> Sequence[str]:
    """Splits whose CAMs are shown: those whose seeds are scored, else the training split."""
    return run.dataset.seed_splits or (run.dataset.train_split,)


def _share(run: RunSpec, splits: Sequence[str]) -> int:
    """How many of the gallery's images each of `splits` has."""
    return -(-run.report.gallery_images // max(1, len(splits)))


def _gallery(job: Job, split: str, examples: dict[str, Any], names: tuple[str, ...]) -> list[GalleryItem]:
    cams = CamReader(job.folder("cams"))
    return [
        GalleryItem(
            id=row.id,
            labels=tuple(names[c] for c in row.classes),
            image=row.read(),
            cams={names[c]: cam for c, cam in zip(*cams.read(row.id), strict=True)},
            steps=_steps(job.inputs["refine"], row.id),
            lvc_steps=_steps(job.inputs["dynamic"], row.id) if "dynamic" in job.inputs else {},
            truth=_truth(job, split, row.id),
            rank=rank,
        )
        for row, rank in _chosen(job, split, examples, _share(job.run, _seeds(job.run)))
    ]


def _segmented(job: Job, split: str, examples: dict[str, Any], count: int) -> list[SegmentedItem]:
    folder = job.folder("predict") / "single_scale" / split
    return [
        SegmentedItem(row.id, row.read(), load_labels_png(folder / f"{row.id}.png"), _truth(job, split, row.id), rank)
        for row, rank in _chosen(job, split, examples, count)
        if (folder / f"{row.id}.png").is_file()
    ]


def _chosen(job: Job, split: str, examples: dict[str, Any], count: int) -> list[tuple[ImageRecord, str]]:
    """(image, why it is shown): best, median and worst in turn, sorted by rank; the first images of an unscored split."""
    rows = images_of(job, split)
    if split not in examples:
        return [(row, "") for row in rows[:count]]
    by_id = {row.id: row for row in rows}
    chosen = sorted(examples[split][:count], key=lambda entry: entry["rank"])
    return [(by_id[e["id"]], f"{e['group']}: rank {e['rank']} of {e['of']}, foreground IoU {e['iou']:.2f}") for e in chosen]


def _steps(output: StageOutput, image: str) -> dict[str, Any]:
    steps = output.result_as(LabelsResult).steps
    return {step: load_labels_png(output.folder / step_folder(step, steps) / f"{image}.png") for step in steps}


def _truth(job: Job, split: str, image: str) -> Any:
    path = job.folder("evaluate") / "truth" / split / f"{image}.png"
    return load_labels_png(path) if path.is_file() else None


def _confusion(job: Job, metrics: dict[str, Any], classes: int) -> dict[str, NDArray[np.int64]]:
    counts = read_counts(job.folder("evaluate") / "confusion.parquet")
    return {key: confusion_of_counts(counts[counts["result"] == key], classes) for key in metrics["results"]}


def stage_row(output: StageOutput, cached: bool) -> StageRow:
    """A stage's output as the report and the artifacts tell of it."""
    origin = read_marker(output.folder).origin
    return StageRow(
        stage=output.stage,
        identity=output.key,
        seconds=output.seconds,
        summary=output.result,
        bytes=output.bytes,
        folder=str(output.folder),
        inputs=origin.inputs,
        code=" ".join(digest[:12] for digest in origin.key_parts["code"].values()),
        finished=origin.finished,
        parts=len(output.parts),
        made_by=origin.flow_run_name,
        made_by_id=origin.flow_run_id,
        cached=cached,
        peak_host_bytes=output.peak_host_bytes,
        peak_gpu_bytes=output.peak_gpu_bytes,
    )


def settings(run: RunSpec) -> dict[str, Any]:
    """All of them: the page shows them."""
    return run.model_dump(mode="json")


def outside(run: RunSpec, environment: RunEnvironment) -> list[str]:
    """The page's template, style and script."""
    return files_fingerprint(*template_files("report"))
