"""Two runs side by side, as a page → comparison.json, classes.png, images.png, index.html. Under the mask guard: the truths
that it shows are copies that evaluation made.

It is no stage of a run: its job holds the outputs of two (tasks/history/compare.py makes it). It is cached as stages are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from artifacts.changed_images import ChangedImage
from artifacts.comparison.page import ComparedRuns, write_comparison
from artifacts.page import template_files
from artifacts.view import ExploredArrays, ExploredImage, ExploredRun
from excel_core.config import RunSpec
from excel_core.datasets.manifest import image_digest
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import DataError
from excel_core.evaluation.examples import ImageScore
from excel_core.prediction.photos import enlarge_labels
from excel_core.stores import read_counts
from tasks.engine.fingerprint import files_fingerprint
from tasks.engine.output import StageResult
from tasks.engine.stage import Job, KeyParts, Stage, Whole
from tasks.inputs.images import ImageRecord, images_of
from tasks.inputs.models import classes_of
from tasks.stages.explored_images import image_scores_by_id
from tasks.stages.label_scores import label_map_kinds, label_maps

__all__ = ["COMPARE", "CompareResult", "Compared", "ComparisonJob", "compared_result"]

MAX_IMAGES, MAX_DRAWN = 60, 6  # on the page, and in the picture for Prefect's UI


class CompareResult(StageResult):
    """How many images the page has."""

    images: int


class Compared(NamedTuple):
    """What a result key is about: the kind of label maps (MAKERS), their split and step."""

    kind: str
    split: str
    step: str


def compared_result(key: str, split: str) -> Compared:
    """`seeds.static.train.crf`, of split `train` → static, train, crf; `segmentation.val.multi_scale` → segmentation, …"""
    family = key.split(".")
    return Compared("segmentation" if family[0] == "segmentation" else family[1], split, family[-1])


@dataclass(frozen=True, kw_only=True)
class ComparisonJob(Job):
    """Run B's outputs, with those of run A below `other`; `comparison`: its document; `shared`: ids of the images that both
    runs scored, of the same photos."""

    other: Job
    comparison: Mapping[str, Any]
    shared: tuple[str, ...]


@dataclass(frozen=True)
class _Side:
    """One run of the two: its job, and its images' scores by step, then id."""

    job: Job
    scores: Mapping[str, Mapping[str, ImageScore]]


def show_comparison(job: Job, folder: Path) -> CompareResult:
    """Write the page: of the shared images whose truth evaluation copied, those whose foreground IoU changed most."""
    assert isinstance(job, ComparisonJob)
    compared, shared = compared_result(job.comparison["result"], job.comparison["protocol"]["split"]), set(job.shared)
    steps = [step for step in label_map_kinds(job, compared.kind) if step in label_map_kinds(job.other, compared.kind)]
    records = {record.id: record for record in images_of(job, compared.split) if record.id in shared}
    a, b = (_Side(side, _scores(side, job.comparison["result"], steps, records)) for side in (job.other, job))
    changes = _changes(a.scores[compared.step], b.scores[compared.step])
    truths = {id: truth for id in changes if (truth := _truth(job, compared.split, id)) is not None}
    changed = sorted((id for id in truths if changes[id]), key=lambda id: -abs(changes[id]))
    shown = changed[:MAX_IMAGES]
    rows = [records[id] for id in shown]
    run_a, run_b = (_explored_run(side, name, compared, steps, rows, truths) for name, side in (("A", a), ("B", b)))
    pairs = list(zip(run_a.images, run_b.images, strict=True))
    drawn = [_drawn(*pair, f"{compared.kind}.{compared.step}") for pair in pairs[:MAX_DRAWN]]
    note = _note(job, len(shown), len(changed), len(truths), len(changes))
    write_comparison(folder, ComparedRuns(job.comparison, run_a, run_b, note, drawn, classes_of(job)))
    return CompareResult(images=len(shown))


def _scores(job: Job, key: str, steps: list[str], records: Mapping[str, ImageRecord]) -> dict[str, dict[str, ImageScore]]:
    counts, family = read_counts(job.folder("evaluate") / "confusion.parquet"), key.rpartition(".")[0]
    return {step: image_scores_by_id(job, counts, f"{family}.{step}", list(records.values())) for step in steps}


def _changes(a: Mapping[str, ImageScore], b: Mapping[str, ImageScore]) -> dict[str, float]:
    """Foreground IoU of B − A by image, where both are defined."""
    ious = {id: (a[id].iou, b[id].iou) for id in b if id in a}
    return {id: after - before for id, (before, after) in ious.items() if before is not None and after is not None}


def _truth(job: ComparisonJob, split: str, id: str) -> Path | None:
    """The copy of an image's mask that the evaluation of one of the runs made."""
    copies = (side.folder("evaluate") / "truth" / split / f"{id}.png" for side in (job, job.other))
    return next((path for path in copies if path.is_file()), None)


def _explored_run(
    side: _Side, name: str, what: Compared, steps: list[str], records: list[ImageRecord], truths: Mapping[str, Path]
) -> ExploredRun:
    images = []
    for record in records:
        files = {step: path for step, path in label_maps(side.job, what.kind, what.split, record.id).items() if step in steps}
        images.append(
            ExploredImage(
                id=record.id,
                split=what.split,
                classes=record.classes,
                scores={f"{what.kind}.{step}": side.scores[step].get(record.id) for step in files},
                load=partial(_load, record, {f"{what.kind}.{step}": path for step, path in files.items()}, truths[record.id]),
            )
        )
    return ExploredRun(name, classes_of(side.job), tuple(images), name=name, photos=name == "B")


def _load(record: ImageRecord, files: dict[str, Path], truth: Path) -> ExploredArrays:
    """Label maps at the size at which run B read the photo; run A may have read it at another. DataError for a photo that is
    not the one of the runs any more."""
    if image_digest(record.path) != record.digest:
        raise DataError(f"{record.path}: was changed since the runs; run again, or leave out --page")
    photo = record.read()
    size = (photo.shape[0], photo.shape[1])
    maps = {kind: enlarge_labels(load_labels_png(path), size) for kind, path in files.items()}
    return ExploredArrays(image=photo, maps=maps, truth=enlarge_labels(load_labels_png(truth), size), cams={})


def _drawn(a: ExploredImage, b: ExploredImage, kind: str) -> ChangedImage:
    before, after = a.load(), b.load()
    scores = [score.iou if (score := image.scores[kind]) else None for image in (a, b)]
    assert before.truth is not None and scores[0] is not None and scores[1] is not None
    return ChangedImage(a.id, a.split, after.image, before.maps[kind], after.maps[kind], before.truth, scores[0], scores[1])


def _note(job: ComparisonJob, shown: int, changed: int, with_truth: int, defined: int) -> str:
    """`60 of 240 images …`, and why others are not shown."""
    total = len(job.shared)
    remarks = [f"{shown:,} of {total:,} shared images, those whose foreground IoU changed most"]
    for count, why in (
        (total - defined, "without a class in truth and label map"),
        (defined - with_truth, "without a copy of their truth (report.images)"),
        (with_truth - changed, "with the same foreground IoU in both runs"),
        (changed - shown, f"with smaller changes than the {MAX_IMAGES} that are shown"),
    ):
        if count:
            remarks.append(f"{count:,} {why}")
    return "; ".join(remarks)


def _key(job: Job) -> dict[str, Any]:
    """The comparison's document, and the contents of both runs' outputs."""
    assert isinstance(job, ComparisonJob)
    content_digests = {name: output.content for name, output in sorted(job.inputs.items())}
    return {"contents": content_digests, "comparison": job.comparison, "shared": job.shared}


def _settings(run: RunSpec) -> dict[str, Any]:
    """None of one run: both are in the comparison."""
    return {}


COMPARE = Stage(
    "compare",
    reads=(),
    makes="comparison.json, classes.png, images.png, index.html: two runs side by side",
    work=Whole(show_comparison),
    key=KeyParts(_settings, inputs=_key, outside=lambda run, environment: files_fingerprint(*template_files("comparison"))),
)
