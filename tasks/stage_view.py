"""What a stage that ran alone shows: a ReportView with what it made and nothing else, and pages of its own.

No mask is opened: whoever calls this does so under the mask guard. What `evaluate` scored is shown as its files have it.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import pandas as pd

from artifacts.knowledge_view import attribute_rows, attributes_are, knowledge_map
from artifacts.rows import Row
from artifacts.stage_pages import StagePage, changes_page, images_page, texts_page
from artifacts.view import GalleryItem, ReportView, SegmentedItem
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import ExcelError
from excel_core.files import read_json
from excel_core.stores import CamReader, read_knowledge, read_manifest
from excel_core.text.knowledge_diff import WeightedKnowledge, compare_knowledge
from excel_core.text.user_descriptions import load_user_descriptions
from tasks.engine.stage import Job
from tasks.history.run_record import RunRecord, read_records
from tasks.inputs.images import ImageRecord, images_of
from tasks.inputs.models import load_knowledge
from tasks.stages.dataset import DatasetResult
from tasks.stages.predict import PredictResult
from tasks.stages.refine import LabelsResult, step_folder
from tasks.stages.report import stage_row
from tasks.stages.train import TrainResult

__all__ = ["stage_pages", "stage_view"]

SHOWN_IMAGES = 3  # of a stage, each of other classes where there are


def stage_view(job: Job, cached: frozenset[str]) -> ReportView:
    """What the stage of `job` made. The job's inputs are all of the run's outputs by stage, the stage's own among them.
    `cached` names the stages that the run found complete."""
    run, fill = job.run, FILLED.get(job.stage.name, lambda job: {})
    nothing: dict[str, Any] = {
        "metrics": {}, "gallery": (), "segmented": (), "losses": None, "attributes": (), "class_names": (),
    }  # fmt: skip
    return ReportView(
        title=f"{job.stage.name}, preset {run.preset}",
        preset=run.preset,
        method=run.method,
        clip=run.clip.model,
        stages=tuple(stage_row(output, output.stage in cached) for output in job.inputs.values()),
        spec=run.model_dump(mode="json"),
        **nothing | fill(job),
    )


def stage_pages(job: Job) -> list[StagePage]:
    """Pages that only this stage has."""
    return list(PAGES.get(job.stage.name, lambda job: iter(()))(job))


def _knowledge(job: Job) -> dict[str, Any]:
    base = load_knowledge(job)
    return {
        "attributes": tuple(attribute_rows(base, job.run.knowledge)),
        "attributes_are": attributes_are(job.run.knowledge),
        "knowledge_map": knowledge_map(base),
        "class_names": base.class_names,
    }


def _cams(job: Job) -> dict[str, Any]:
    return _gallery(job, "cams", None)


def _refine(job: Job) -> dict[str, Any]:
    return _gallery(job, "cams", "refine")


def _dynamic(job: Job) -> dict[str, Any]:
    return _gallery(job, "dynamic", "dynamic")


def _gallery(job: Job, cams: str, labels: str | None) -> dict[str, Any]:
    """Photos with the CAMs of one stage, and the label maps of one."""
    names, reader = load_knowledge(job).class_names, CamReader(job.folder(cams))
    items = [
        GalleryItem(
            id=image.id,
            labels=tuple(names[c] for c in image.classes),
            image=image.read(),
            cams={names[c]: cam for c, cam in zip(*reader.read(image.id), strict=True)},
            steps={} if labels is None else _steps(job, labels, image.id),
        )
        for image in _of_other_classes(job, job.run.dataset.cam_splits)
    ]
    return {"gallery": tuple(items), "class_names": names}


def _steps(job: Job, stage: str, image: str) -> dict[str, Any]:
    steps = job.result(stage, LabelsResult).steps
    return {step: load_labels_png(job.folder(stage) / step_folder(step, steps) / f"{image}.png") for step in steps}


def _predict(job: Job) -> dict[str, Any]:
    """Photos with the label maps of the last variant."""
    variant, items = job.result("predict", PredictResult).variants[-1], []
    for image, split in _split_images(job, job.run.dataset.val_splits):
        file = job.folder("predict") / variant / split / f"{image.id}.png"
        if file.is_file():
            items.append(SegmentedItem(image.id, image.read(), load_labels_png(file)))
        if len(items) == SHOWN_IMAGES:
            break
    return {"segmented": tuple(items), "class_names": load_knowledge(job).class_names}


def _train(job: Job) -> dict[str, Any]:
    losses = pd.read_csv(job.folder("train") / "losses.csv")
    return {"losses": losses, "given_segmenter": job.result("train", TrainResult).source}


def _evaluate(job: Job) -> dict[str, Any]:
    names = load_knowledge(job).class_names
    return {"metrics": read_json(job.folder("evaluate") / "metrics.json"), "class_names": names}


FILLED: dict[str, Callable[[Job], dict[str, Any]]] = {
    "knowledge": _knowledge, "cams": _cams, "refine": _refine, "train": _train, "dynamic": _dynamic, "predict": _predict,
    "evaluate": _evaluate,
}  # fmt: skip


def _of_other_classes(job: Job, splits: Sequence[str]) -> list[ImageRecord]:
    """The first images that show a class which none before them shows; filled up with the first others."""
    chosen: dict[str, ImageRecord] = {}
    shown_classes: set[int] = set()
    images = [image for image, _ in _split_images(job, splits)]
    for image in images:
        if len(chosen) < SHOWN_IMAGES and not shown_classes.issuperset(image.classes):
            chosen[image.id] = image
            shown_classes.update(image.classes)
    other_images = (image for image in images if image.id not in chosen)
    return [*chosen.values(), *islice(other_images, SHOWN_IMAGES - len(chosen))]


def _split_images(job: Job, splits: Sequence[str]) -> Iterator[tuple[ImageRecord, str]]:
    for split in dict.fromkeys(splits):
        yield from ((image, split) for image in images_of(job, split))


def _images_page(job: Job) -> Iterator[StagePage]:
    result = job.result("dataset", DatasetResult)
    splits: list[Row] = [
        {
            "split": split,
            "images": f"{count:,}",
            "no object": f"{result.left_out.get(split, 0):,}",
            "absent": f"{result.absent.get(split, 0):,}",
        }
        for split, count in result.images.items()
    ]
    manifest = read_manifest(job.folder("dataset") / "manifest.parquet")
    labels = manifest[["split", "labels"]].explode("labels").dropna()
    counts = labels.groupby(["labels", "split"], sort=True).size().unstack(fill_value=0)
    classes: list[Row] = [
        {"class": str(name)} | {split: f"{row[split]:,}" for split in result.images if split in counts.columns}
        for name, row in counts.iterrows()
    ]
    yield images_page(splits, classes, result.bad)


def _texts_page(job: Job) -> Iterator[StagePage]:
    if job.run.describe.provider == "none":
        yield texts_page({}, {"provider": "none"})
    else:
        described = load_user_descriptions(job.folder("describe") / "descriptions.json")
        yield texts_page(described.texts, described.provenance)


def _changes_page(job: Job) -> Iterator[StagePage]:
    """Against the newest run before whose knowledge base was another one of the same CLIP."""
    earlier = _earlier_knowledge(job)
    if earlier is not None:
        before = WeightedKnowledge(read_knowledge(earlier.output("knowledge") / "knowledge.zarr"), earlier.run.knowledge)
        yield changes_page(earlier.flow_run_name or earlier.id, compare_knowledge(before, _weighed(job)))


def _weighed(job: Job) -> WeightedKnowledge:
    return WeightedKnowledge(load_knowledge(job), job.run.knowledge)


def _earlier_knowledge(job: Job) -> RunRecord | None:
    """The newest run of the preset with another knowledge base of the same CLIP, which is still there."""
    key = job.inputs["knowledge"].key
    for record in reversed(read_records(job.environment.store)):
        if record.own.get("knowledge") in (None, key) or record.spec.get("preset") != job.run.preset:
            continue
        try:
            if record.run.clip.model == job.run.clip.model and (record.output("knowledge") / "knowledge.zarr").is_dir():
                return record
        except ExcelError:  # of another version, or gone: one before it may be readable
            continue
    return None


PAGES: dict[str, Callable[[Job], Iterator[StagePage]]] = {
    "dataset": _images_page, "describe": _texts_page, "knowledge": _changes_page,
}  # fmt: skip
