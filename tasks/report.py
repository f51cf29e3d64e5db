"""Stage `report`: what the other stages left, as a self-contained page. Under the mask guard: the truths it shows are
copies that evaluation made."""

from pathlib import Path
from typing import Any

import pandas as pd

import artifacts.html_report
from artifacts.html_report import write_report
from artifacts.view import AttributeRow, GalleryItem, ReportView, SegmentedItem, StageRow
from excel_core.config import RunSpec
from excel_core.knowledge import nearest_descriptions
from excel_core.palette import load_labels_png
from excel_core.stores import CamReader, read_json
from tasks.evaluate import SHOWN_TRUTHS
from tasks.fingerprint import files_fingerprint
from tasks.refine import step_folder
from tasks.stage import Place, Stage, StageOutput, Work
from tasks.vision import Record, load_knowledge, records

__all__ = ["STAGE", "build_view"]


def build_report(work: Work) -> dict[str, Any]:
    """Write index.html."""
    write_report(work.folder, build_view(work))
    return {"page": "index.html"}


def build_view(work: Work) -> ReportView:
    """Everything the report and the Prefect artifacts show."""
    run, store = work.run, load_knowledge(work)
    shown = run.report.gallery_images
    train = records(work, run.dataset.train_split)
    gallery = tuple(_gallery_item(work, row, store.class_names) for row in train[: min(shown, SHOWN_TRUTHS)])
    per_split = -(-shown // len(run.dataset.val_splits))
    segmented = [item for split in run.dataset.val_splits for item in _segmented(work, split, per_split)]
    nearest = nearest_descriptions(store.knowledge, 3) if len(store.knowledge.attributes) else []
    return ReportView(
        title=f"excel {run.preset}",
        preset=run.preset,
        method=run.method,
        clip=run.clip.model,
        metrics=read_json(work.input("evaluate") / "metrics.json"),
        stages=tuple(_stage_row(output) for output in work.inputs.values()),
        gallery=gallery,
        segmented=tuple(segmented[:shown]),
        losses=pd.read_csv(work.input("train") / "losses.csv"),
        attributes=tuple(AttributeRow(n, tuple(store.texts[int(i)] for i in row), ()) for n, row in enumerate(nearest)),
        spec=run.model_dump(mode="json"),
        class_names=store.class_names,
    )


def _gallery_item(work: Work, row: Record, names: tuple[str, ...]) -> GalleryItem:
    classes, cams = CamReader(work.input("cams")).read(row.id)
    return GalleryItem(
        id=row.id,
        labels=tuple(names[c] for c in row.classes),
        image=row.read(),
        cams={names[c]: cam for c, cam in zip(classes, cams, strict=True)},
        steps=_steps(work.inputs["refine"], row.id),
        lvc_steps=_steps(work.inputs["dynamic"], row.id),
        truth=_truth(work, work.run.dataset.train_split, row.id),
    )


def _steps(output: StageOutput, image: str) -> dict[str, Any]:
    steps: list[str] = output.summary["steps"]
    return {step: load_labels_png(output.folder / step_folder(step, steps) / f"{image}.png") for step in steps}


def _segmented(work: Work, split: str, count: int) -> list[SegmentedItem]:
    folder = work.input("evaluate") / "segmentation" / split
    rows = [row for row in records(work, split) if (folder / f"{row.id}.png").is_file()][:count]
    return [
        SegmentedItem(row.id, row.read(), load_labels_png(folder / f"{row.id}.png"), _truth(work, split, row.id))
        for row in rows
    ]


def _truth(work: Work, split: str, image: str) -> Any:
    path = work.input("evaluate") / "truth" / split / f"{image}.png"
    return load_labels_png(path) if path.is_file() else None


def _stage_row(output: StageOutput) -> StageRow:
    return StageRow(output.stage, output.identity, output.seconds, output.summary, sum(output.files.values()))


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.model_dump(mode="json")


def _outside(run: RunSpec, place: Place) -> list[str]:
    folder = Path(artifacts.html_report.__file__).parent
    return files_fingerprint(*sorted([*folder.glob("*.j2"), *folder.glob("*.css")]))


STAGE = Stage(
    "report",
    ("dataset", "describe", "knowledge", "cams", "refine", "train", "dynamic", "evaluate"),
    _spec,
    build_report,
    outside=_outside,
)
