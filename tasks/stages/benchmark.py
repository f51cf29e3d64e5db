"""Stage `benchmark`: methods on the same images, from the runs of each → benchmark.json, benchmark.csv, benchmark.md, pictures,
and a self-contained page. Under the mask guard: the truths that it shows are copies that evaluation made.

benchmark.json (excel-benchmark/1): `preset`, `clip`, `limit`, `seeds`, `resamples`; `methods`: of each its name, kinds of label
maps, and iterations of training; `numbers` (excel_core.evaluation.benchmark.methods_numbers); `classes`: of each kind's last
step, IoU by class and method; `costs`: seconds, peak memory and trained parameters of each method, and of its stages;
`gallery`: which images are shown, and why; `skipped`: what could not be scored and why.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.benchmark.page import write_benchmark
from artifacts.page import template_files
from artifacts.stages import largest_known
from artifacts.view import ComparedItem, Labels
from excel_core.config import RunSpec
from excel_core.datasets.palette import load_labels_png
from excel_core.evaluation.benchmark import (
    Evaluated,
    MethodScores,
    common_images,
    disagreement,
    method_runs,
    methods_numbers,
    score_method,
    seed_run,
)
from excel_core.files import read_json
from excel_core.models.checkpoints import trained_parameters
from excel_core.stores import read_counts
from tasks.engine.fingerprint import files_fingerprint
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.images import images_of
from tasks.inputs.models import classes_of
from tasks.stages.label_scores import MAKERS
from tasks.stages.refine import LabelsResult, step_folder
from tasks.stages.train import reads_pseudo_labels

__all__ = ["BenchmarkResult", "compare_methods", "method_inputs", "outside", "settings"]

# Stages that a method's own cost is of, in the order in which they run; reading the data set is the same for all.
COSTLY = ("describe", "knowledge", "cams", "refine", "train", "dynamic", "predict")
NEEDED = {
    "static": ("describe", "knowledge", "cams", "refine"),
    "lvc": ("train", "dynamic"),
    "segmentation": ("train", "predict"),
}
# Galleries: the kinds of label maps that one shows, with their captions. Images are ranked by the first kind that was scored.
GALLERIES = {
    "seeds": {"static": "training-free", "lvc": "after training"},
    "segmentation": {"segmentation": "segmentation"},
}


class BenchmarkResult(StageResult):
    """mIoU by method and kind of label map, of the last step, four decimals."""

    miou: dict[str, dict[str, float]]


def method_inputs(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """Of each method and seed: its scores, and the stages whose costs and pictures are shown."""
    dependencies: dict[str, Dependency] = {}
    for method, method_run in method_runs(run).items():
        for seed in range(run.benchmark.seeds):
            varied = seed_run(method_run, seed)
            if varied is not None:
                stages = ("evaluate", *_stages(varied))
                dependencies |= {_input(method, seed, stage): Dependency(stage, varied) for stage in stages}
    return dependencies


def compare_methods(job: Job, folder: Path) -> BenchmarkResult:
    """Score every method, and write what was found as data, tables, pictures and page."""
    runs, names = method_runs(job.run), ("background", *classes_of(job))
    evaluated = {method: _outputs(job, method, "evaluate") for method in runs}
    images = common_images(_read(output) for outputs in evaluated.values() for output in outputs)
    resamples = job.run.benchmark.resamples
    methods = {
        method: score_method([_read(output) for output in outputs], names, images, resamples)
        for method, outputs in evaluated.items()
    }
    numbers = methods_numbers(methods)
    galleries = {gallery: _chosen(job, methods, gallery) for gallery in GALLERIES}
    document = {
        "format": "excel-benchmark/1",
        "preset": job.run.preset,
        "clip": job.run.clip.model,
        "limit": job.run.benchmark.limit,
        "seeds": job.run.benchmark.seeds,
        "resamples": resamples,
        "methods": [_method(method, method_run) for method, method_run in runs.items()],
        "numbers": numbers,
        "classes": _by_class(methods, names),
        "costs": [_cost(job, method, method_run) for method, method_run in runs.items()],
        "gallery": galleries,
        "skipped": _skipped(evaluated),
    }
    gallery_items = {gallery: [_item(job, methods, gallery, row) for row in rows] for gallery, rows in galleries.items()}
    write_benchmark(folder, document, gallery_items, names[1:])
    miou: dict[str, dict[str, float]] = {method: {} for method in runs}
    for number in numbers:
        miou[number["method"]][number["kind"]] = round(number["miou"], 4)  # a kind's last step comes last
    return BenchmarkResult(miou=miou)


def _method(name: str, run: RunSpec) -> dict[str, Any]:
    """What a method makes, and how long its training is, if it has one."""
    kinds = list(run.evaluate.kinds)
    return {"name": name, "kinds": kinds, "iterations": run.train.iterations if set(kinds) - {"static"} else None}


def _outputs(job: Job, method: str, stage: str) -> list[StageOutput]:
    """A stage's outputs for a method, its own seed's first; of the seeds that it depends on."""
    names = [_input(method, seed, stage) for seed in range(job.run.benchmark.seeds)]
    return [job.inputs[name] for name in names if name in job.inputs]


def _read(output: StageOutput) -> Evaluated:
    counts = read_counts(output.folder / "confusion.parquet").astype({"image": "category", "result": "category"})
    return Evaluated(read_json(output.folder / "metrics.json")["results"], counts)


def _skipped(evaluated: Mapping[str, Sequence[StageOutput]]) -> dict[str, str]:
    """What no method could be scored on; the reason is the data's."""
    skipped: dict[str, str] = {}
    for outputs in evaluated.values():
        skipped |= read_json(outputs[0].folder / "metrics.json")["skipped"]
    return skipped


def _by_class(methods: Mapping[str, MethodScores], names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """By kind: {class, iou by method} of each class that the truth holds, the mean over those splits that have it."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for kind in MAKERS:
        having = {
            method: list(scores.class_iou[kind].values()) for method, scores in methods.items() if kind in scores.class_iou
        }
        rows = []
        for index, name in enumerate(names):
            ious_of = {method: [iou[index] for iou in splits if not np.isnan(iou[index])] for method, splits in having.items()}
            if any(ious_of.values()):
                rows.append({"class": name, "iou": {method: float(np.mean(ious)) for method, ious in ious_of.items()}})
        tables |= {kind: rows} if rows else {}
    return tables


def _cost(job: Job, method: str, run: RunSpec) -> dict[str, Any]:
    """What building the method's stages took, whenever that was, and how many parameters were trained. Of several seeds, a
    stage's least time: the first one in a process also compiles, and a machine may have other work."""
    stages = []
    for stage in _stages(run):
        outputs = _outputs(job, method, stage)
        cost: dict[str, Any] = {"stage": stage, "seconds": min(output.seconds for output in outputs)}
        for field in ("peak_host_bytes", "peak_gpu_bytes"):
            cost[field] = largest_known(getattr(output, field) for output in outputs)
        stages.append(cost)
    trained = _outputs(job, method, "train")
    return {
        "method": method,
        "seconds": sum(cost["seconds"] for cost in stages),
        "peak_host_bytes": largest_known(cost["peak_host_bytes"] for cost in stages),
        "peak_gpu_bytes": largest_known(cost["peak_gpu_bytes"] for cost in stages),
        "trained_parameters": trained_parameters(trained[0].folder / "segmenter.safetensors") if trained else None,
        "stages": stages,
    }


def _chosen(job: Job, methods: Mapping[str, MethodScores], gallery: str) -> list[dict[str, Any]]:
    """The images of a gallery: of some method's examples, whose truth evaluation copied, those with the largest spread."""
    shown: dict[str, set[str]] = {}
    for method in methods:
        examples = read_json(_outputs(job, method, "evaluate")[0].folder / "examples.json")
        for split, rows in examples.items():
            shown.setdefault(split, set()).update(row["id"] for row in rows)
    for kind in GALLERIES[gallery]:
        rows = disagreement(methods, kind, shown)
        if rows:
            return [{"kind": kind} | row for row in rows[: job.run.benchmark.gallery_images]]
    return []


def _item(job: Job, methods: Mapping[str, MethodScores], gallery: str, row: Mapping[str, Any]) -> ComparedItem:
    split, image = row["split"], row["id"]
    record = next(record for record in images_of(job, split) if record.id == image)
    truths = (_outputs(job, method, "evaluate")[0].folder / "truth" / split / f"{image}.png" for method in methods)
    return ComparedItem(
        id=image,
        image=record.read(),
        truth=load_labels_png(next(path for path in truths if path.is_file())),
        methods={method: _label_maps(job, method, scores, gallery, split, image) for method, scores in methods.items()},
        miou=row["miou"],
        remark=f"{split}; mIoU of this image from {min(row['miou'].values()):.2f} to {max(row['miou'].values()):.2f}",
    )


def _label_maps(job: Job, method: str, scores: MethodScores, gallery: str, split: str, image: str) -> dict[str, Labels]:
    """A method's label maps of an image after each kind's last step, by caption."""
    maps: dict[str, Labels] = {}
    for kind, caption in GALLERIES[gallery].items():
        if kind in scores.last_steps:
            _, step = scores.last_steps[kind]
            path = _label_map(_outputs(job, method, MAKERS[kind])[0], kind, step, split, image)
            maps |= {caption: load_labels_png(path)} if path.is_file() else {}
    return maps


def _label_map(output: StageOutput, kind: str, step: str, split: str, image: str) -> Path:
    if kind == "segmentation":
        return output.folder / step / split / f"{image}.png"
    return output.folder / step_folder(step, output.result_as(LabelsResult).steps) / f"{image}.png"


def _stages(run: RunSpec) -> list[str]:
    """The stages that a method's cost is of."""
    kinds: Iterable[str] = run.evaluate.kinds
    needed_stages = {stage for kind in kinds for stage in NEEDED[kind]}
    if "train" in needed_stages and reads_pseudo_labels(run):
        needed_stages |= set(NEEDED["static"])
    return [stage for stage in COSTLY if stage in needed_stages]


def _input(method: str, seed: int, stage: str) -> str:
    """What an input is called. Scores come first, so that the stages of their run are called by method and seed alone."""
    return f"{method}, seed {seed}" if stage == "evaluate" else f"{method}, seed {seed}, {stage}"


def settings(run: RunSpec) -> dict[str, Any]:
    """Which methods, how they are compared, what is shown, and of what."""
    methods = [_method(method, one) for method, one in method_runs(run).items()]
    return {"benchmark": run.benchmark.model_dump(mode="json"), "methods": methods, "names": [run.preset, run.clip.model]}


def outside(run: RunSpec, environment: RunEnvironment) -> list[str]:
    """The page's template and style."""
    return files_fingerprint(*template_files("benchmark"))
