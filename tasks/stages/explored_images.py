"""The images of the report's explorer: which, what each scores, and how their arrays are read. Opens no mask: truths are the
copies that evaluation made, scores come from its counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from artifacts.view import ExploredArrays, ExploredImage
from excel_core.datasets.palette import load_labels_png
from excel_core.evaluation.bootstrap import confusions_by_image
from excel_core.evaluation.examples import ImageScore, image_scores
from excel_core.files import read_json
from excel_core.stores import CamReader, read_counts
from tasks.engine.stage import Job
from tasks.inputs.images import ImageRecord, images_of
from tasks.inputs.models import classes_of
from tasks.stages.evaluate import explored_shares, explored_splits
from tasks.stages.predict import PredictResult
from tasks.stages.refine import LabelsResult, step_folder

__all__ = ["explored_images", "explored_note", "image_scores_by_id"]


@dataclass(frozen=True)
class _Kind:
    """A kind of label map: its name, the key of its results in a split, and the folder of that split's PNGs."""

    name: str
    result: str
    folder: Path


def explored_images(job: Job) -> Iterator[ExploredImage]:
    """The images split by split; of a scored split those whose truth evaluation copied, of another the first ones."""
    cams = CamReader(job.folder("cams"))
    with_cams = set(cams.ids)
    counts = read_counts(job.folder("evaluate") / "confusion.parquet")
    for split in explored_splits(job.run):
        records, kinds = _chosen(job, split), _kinds(job, split)
        scores = {kind.name: image_scores_by_id(job, counts, kind.result, records) for kind in kinds}
        for record in records:
            files = {kind.name: path for kind in kinds if (path := kind.folder / f"{record.id}.png").is_file()}
            truth = job.folder("evaluate") / "truth" / split / f"{record.id}.png"
            own_cams = cams if record.id in with_cams else None
            yield ExploredImage(
                id=record.id,
                split=split,
                classes=record.classes,
                scores={name: scores[name].get(record.id) for name in files},
                load=partial(_load, record, files, truth, own_cams),
            )


def explored_note(job: Job) -> str:
    """`train: 100 of 120 images, evenly over the ranking`, split by split."""
    scored = read_json(job.folder("evaluate") / "explored.json")
    notes = []
    for split in explored_splits(job.run):
        shown, total = len(_chosen(job, split)), len(images_of(job, split))
        how = "" if shown == total else ", evenly over the ranking" if split in scored else ", the first ones"
        notes.append(f"{split}: {'all' if shown == total else f'{shown:,} of'} {total:,} images{how}")
    return "; ".join(notes)


def _chosen(job: Job, split: str) -> Sequence[ImageRecord]:
    """In the manifest's order: scored images that evaluation chose, then, where there is room, others."""
    count = explored_shares(job)[split]
    scored = set(read_json(job.folder("evaluate") / "explored.json").get(split, ()))
    records = images_of(job, split)
    unscored = [record.id for record in records if record.id not in scored][: count - len(scored)]
    chosen = scored.union(unscored)
    return [record for record in records if record.id in chosen]


def _kinds(job: Job, split: str) -> list[_Kind]:
    """The label maps that images of a split may have, in the order in which they are made."""
    kinds = []
    for name, stage in (("static", "refine"), ("lvc", "dynamic")):
        if stage in job.inputs:
            output = job.inputs[stage]
            steps = output.result_as(LabelsResult).steps
            for step in steps:
                folder = output.folder / step_folder(step, steps)
                kinds.append(_Kind(f"{name}.{step}", f"seeds.{name}.{split}.{step}", folder))
    if "predict" in job.inputs:
        for variant in job.result("predict", PredictResult).variants:
            folder = job.folder("predict") / variant / split
            kinds.append(_Kind(f"segmentation.{variant}", f"segmentation.{split}.{variant}", folder))
    return kinds


def image_scores_by_id(job: Job, counts: pd.DataFrame, key: str, records: Sequence[ImageRecord]) -> dict[str, ImageScore]:
    """Of result `key`, the score of each of the images that was scored, by id."""
    counts_of_result = counts[counts["result"] == key]
    scored = set(counts_of_result["image"])
    ids = [record.id for record in records if record.id in scored]
    classes = len(classes_of(job)) + 1
    return dict(zip(ids, image_scores(confusions_by_image(counts_of_result, ids, classes), classes), strict=True))


def _load(record: ImageRecord, files: dict[str, Path], truth: Path, cams: CamReader | None) -> ExploredArrays:
    return ExploredArrays(
        image=record.read(),
        maps={name: load_labels_png(path) for name, path in files.items()},
        truth=load_labels_png(truth) if truth.is_file() else None,
        cams=dict(zip(*cams.read(record.id), strict=True)) if cams is not None else {},
    )
