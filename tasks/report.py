"""Stage `report`: what the other stages left, as a self-contained page. Under the mask guard: the truths it shows are
copies that evaluation made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.decomposition import PCA

import artifacts.html_report
from artifacts.html_report import write_report
from artifacts.view import AttributeRow, GalleryItem, KnowledgeMap, ReportView, SegmentedItem, StageRow
from excel_core.config import RunSpec
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import SettingError
from excel_core.evaluation.metrics import confusion_of_counts
from excel_core.files import read_json
from excel_core.stores import CamReader, read_counts
from excel_core.text.knowledge import KnowledgeBase, attribute_weights, nearest_descriptions
from tasks.engine.fingerprint import files_fingerprint
from tasks.engine.outputs import StageOutput, read_marker
from tasks.engine.stage import Dependency, RunEnvironment, Stage, Work
from tasks.inputs.cam_model import load_knowledge
from tasks.inputs.given_segmenter import given_words
from tasks.inputs.records import Record, records
from tasks.refine import step_folder

__all__ = ["STAGE", "attributes_are", "build_view"]

NEAREST, USERS = 3, 3  # descriptions and classes shown of an attribute


def build_report(work: Work) -> dict[str, Any]:
    """Write index.html."""
    write_report(work.folder, build_view(work))
    return {"page": "index.html"}


def build_view(work: Work, cached: frozenset[str] = frozenset()) -> ReportView:
    """Everything the report and the Prefect artifacts show; `cached` names the stages that a run found complete."""
    run, store = work.run, load_knowledge(work)
    metrics = read_json(work.input("evaluate") / "metrics.json")
    shown = read_json(work.input("evaluate") / "shown.json")
    per_split = _share(run, run.dataset.val_splits)
    segmented = [item for split in run.dataset.val_splits for item in _segmented(work, split, shown, per_split)]
    return ReportView(
        title=f"excel {run.preset}" + (", fully supervised" if run.train.supervision == "masks" else ""),
        preset=run.preset,
        method=run.method,
        clip=run.clip.model,
        metrics=metrics,
        stages=tuple(_stage_row(output, output.stage in cached) for output in work.inputs.values()),
        gallery=tuple(item for split in _seeds(run) for item in _gallery(work, split, shown, store.class_names)),
        segmented=tuple(segmented),
        losses=pd.read_csv(work.input("train") / "losses.csv"),
        given_segmenter=given_words(work.inputs["train"].summary),
        attributes=tuple(_attributes(store, run)),
        spec=run.model_dump(mode="json"),
        class_names=store.class_names,
        confusion=_confusion(work, metrics, len(store.class_names) + 1),
        knowledge_map=_knowledge_map(store),
        attributes_are=attributes_are(run),
        curve=read_json(work.input("curve") / "curve.json") if "curve" in work.inputs else {},
    )


def _seeds(run: RunSpec) -> Sequence[str]:
    """Splits whose CAMs are shown: those whose seeds are scored, else the training split."""
    return run.dataset.seed_splits or (run.dataset.train_split,)


def _share(run: RunSpec, splits: Sequence[str]) -> int:
    """How many of the gallery's images each of `splits` has."""
    return -(-run.report.gallery_images // max(1, len(splits)))


def _gallery(work: Work, split: str, shown: dict[str, Any], names: tuple[str, ...]) -> list[GalleryItem]:
    cams = CamReader(work.input("cams"))
    return [
        GalleryItem(
            id=row.id,
            labels=tuple(names[c] for c in row.classes),
            image=row.read(),
            cams={names[c]: cam for c, cam in zip(*cams.read(row.id), strict=True)},
            steps=_steps(work.inputs["refine"], row.id),
            lvc_steps=_steps(work.inputs["dynamic"], row.id),
            truth=_truth(work, split, row.id),
            rank=rank,
        )
        for row, rank in _chosen(work, split, shown, _share(work.run, _seeds(work.run)))
    ]


def _segmented(work: Work, split: str, shown: dict[str, Any], count: int) -> list[SegmentedItem]:
    folder = work.input("predict") / "single_scale" / split
    return [
        SegmentedItem(row.id, row.read(), load_labels_png(folder / f"{row.id}.png"), _truth(work, split, row.id), rank)
        for row, rank in _chosen(work, split, shown, count)
        if (folder / f"{row.id}.png").is_file()
    ]


def _chosen(work: Work, split: str, shown: dict[str, Any], count: int) -> list[tuple[Record, str]]:
    """(image, why it is shown): best, median and worst in turn, sorted by rank; the first images of an unscored split."""
    rows = records(work, split)
    if split not in shown:
        return [(row, "") for row in rows[:count]]
    by_id = {row.id: row for row in rows}
    chosen = sorted(shown[split][:count], key=lambda entry: entry["rank"])
    return [(by_id[e["id"]], f"{e['group']}: rank {e['rank']} of {len(rows)}, mIoU {e['miou']:.2f}") for e in chosen]


def _steps(output: StageOutput, image: str) -> dict[str, Any]:
    steps: list[str] = output.summary["steps"]
    return {step: load_labels_png(output.folder / step_folder(step, steps) / f"{image}.png") for step in steps}


def _truth(work: Work, split: str, image: str) -> Any:
    path = work.input("evaluate") / "truth" / split / f"{image}.png"
    return load_labels_png(path) if path.is_file() else None


def _attributes(store: KnowledgeBase, run: RunSpec) -> list[AttributeRow]:
    knowledge, names = store.knowledge, store.class_names
    if not len(knowledge.attributes):
        return []
    weights, index = (part.numpy() for part in attribute_weights(knowledge.templates, knowledge.attributes, run.knowledge))
    table = np.zeros((len(names), len(knowledge.attributes)))
    np.put_along_axis(table, index, weights, axis=1)
    users = np.argsort(-table, axis=0, kind="stable")[:USERS]
    return [
        AttributeRow(
            number,
            tuple(store.texts[int(i)] for i in nearest),
            tuple((names[c], float(table[c, number])) for c in users[:, number] if table[c, number] > 0),
        )
        for number, nearest in enumerate(nearest_descriptions(knowledge, NEAREST))
    ]


def attributes_are(run: RunSpec) -> str:
    """What a run's attributes are, in words."""
    file, mode = run.knowledge.attributes_file, run.knowledge.mode
    if mode == "class_means":
        return "the means of each class's descriptions"
    return f"centroids of the file {Path(file).name}" if file and mode == "attributes" else "clusters of descriptions"


def _confusion(work: Work, metrics: dict[str, Any], classes: int) -> dict[str, NDArray[np.int64]]:
    counts = read_counts(work.input("evaluate") / "confusion.parquet")
    return {key: confusion_of_counts(counts[counts["result"] == key], classes) for key in metrics["results"]}


def _knowledge_map(store: KnowledgeBase) -> KnowledgeMap:
    """Descriptions, attributes and T_c on the two principal axes of the descriptions."""
    knowledge, classes = store.knowledge, len(store.class_names)
    axes = PCA(n_components=2, svd_solver="full").fit(knowledge.descriptions.numpy())
    attributes = knowledge.attributes.numpy()
    enriched = F.normalize(knowledge.text[:classes], dim=1)  # of unit length as the descriptions are; T_c itself may not be
    return KnowledgeMap(
        descriptions=axes.transform(knowledge.descriptions.numpy()),
        description_class=np.repeat(np.arange(classes), len(store.texts) // classes),
        attributes=axes.transform(attributes) if len(attributes) else np.zeros((0, 2)),
        classes=axes.transform(enriched.numpy()),
        explained=(float(axes.explained_variance_ratio_[0]), float(axes.explained_variance_ratio_[1])),
    )


def _stage_row(output: StageOutput, cached: bool) -> StageRow:
    origin = read_marker(output.folder)["origin"]
    return StageRow(
        stage=output.stage,
        identity=output.identity,
        seconds=output.seconds,
        summary=output.summary,
        bytes=output.bytes,
        folder=str(output.folder),
        inputs=origin["inputs"],
        code=origin["basis"]["code"],
        finished=origin["finished"],
        parts=len(output.parts),
        made_by=origin.get("flow_run_name", ""),
        made_by_id=origin.get("flow_run_id", ""),
        cached=cached,
        peak_host_bytes=output.peak_host_bytes,
        peak_gpu_bytes=output.peak_gpu_bytes,
    )


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.model_dump(mode="json")


def _needs(run: RunSpec, place: RunEnvironment) -> dict[str, Dependency]:
    """The learning curve, where segmenters were kept for it. SettingError for a run that does not score everything."""
    missing = [kind for kind in ("static", "lvc", "segmentation") if kind not in run.evaluate.kinds]
    if missing:
        raise SettingError(f"evaluate.kinds={','.join(run.evaluate.kinds)}: a report needs {', '.join(missing)} too")
    return {"curve": Dependency("curve", run)} if run.train.keep_every is not None else {}


def _outside(run: RunSpec, place: RunEnvironment) -> list[str]:
    folder = Path(artifacts.html_report.__file__).parent
    return files_fingerprint(*sorted(path for kind in ("j2", "css", "js") for path in folder.glob(f"*.{kind}")))


STAGE = Stage(
    "report",
    ("dataset", "describe", "knowledge", "cams", "refine", "train", "dynamic", "predict", "evaluate"),
    _spec,
    build_report,
    needs=_needs,
    outside=_outside,
    reads_data=True,
)
