"""Two runs side by side: what was asked differently, and what came of it, with intervals over the images they share.

compare_runs      the numbers, as data
comparison_job    what shows them on a page, with the images that changed most (tasks/stages/compare.py)
"""

from pathlib import Path
from typing import Any

import pandas as pd

from artifacts.headline import headline_key
from excel_core.errors import SettingError
from excel_core.evaluation.bootstrap import confusions_by_image
from excel_core.evaluation.examples import most_changed_images
from excel_core.files import read_json
from excel_core.stores import read_counts, read_manifest
from tasks.engine.object_store import remote_url
from tasks.engine.output import StageOutput, find_output
from tasks.engine.stage import Job, RunEnvironment
from tasks.history.changed_settings import spec_differences
from tasks.history.compared_scores import compared_scores, edited_truths, without_nan
from tasks.history.earlier_run import shared_photos
from tasks.history.run_record import RunRecord
from tasks.stages.compare import COMPARE, ComparisonJob, compared_result
from tasks.stages.label_scores import MAKERS

__all__ = ["NEEDED", "compare_runs", "comparison_job"]

NEEDED = ("dataset", "evaluate")  # stages that runs must have to be compared
MAX_IMAGES = 10  # that are listed


def compare_runs(a: RunRecord, b: RunRecord, result: str | None = None) -> dict[str, Any]:
    """Differences B − A of result key `result` (default: the headline of what both have, `artifacts.tables.headline_key`):

    spec: [{field, a, b}]; results: [{key, a, b}]; result; protocol of B, protocol_a of A; miou: {a, b, difference, low, high}
    with the 95 % interval of the difference over the same resampled images; classes: the same with `class` and the number of
    `images` that hold it; images: those that changed most. Images are shared where both runs scored them against the same truth
    and read the same photo. SettingError where the two share no result or image.
    """
    metrics = [read_json(record.output("evaluate") / "metrics.json") for record in (a, b)]
    supervision = [scored.get("supervision", "labels") for scored in metrics]
    if supervision[0] != supervision[1]:
        masked = (a if supervision[0] == "masks" else b).title
        raise SettingError(f"run {masked} was trained on true masks, the other on image-level labels: they are not compared")
    shared = [key for key in metrics[0]["results"] if key in metrics[1]["results"]]
    if not shared:
        raise SettingError(f"runs {a.title} and {b.title} share no scored result")
    if result is not None and result not in shared:
        raise SettingError(f"--result {result!r}: both runs have {', '.join(shared)}")
    key = result or headline_key({"results": dict.fromkeys(shared)}) or shared[-1]
    names = list(metrics[0]["results"][key]["iou"])
    if names != list(metrics[1]["results"][key]["iou"]):
        raise SettingError(f"runs {a.title} and {b.title} have other classes")
    protocols = [scored["results"][key]["protocol"] for scored in metrics]
    return {
        "a": a.title,
        "b": b.title,
        "preset": b.spec["preset"],
        "spec": spec_differences(a.spec, b.spec),
        "results": [{"key": k, **{r: m["results"][k]["miou"] for r, m in zip("ab", metrics, strict=True)}} for k in shared],
        "result": key,
        "protocol": protocols[1],
        "protocol_a": protocols[0],
        **_paired(a, b, key, protocols[1]["split"], names),
    }


def _paired(a: RunRecord, b: RunRecord, key: str, split: str, names: list[str]) -> dict[str, Any]:
    """Scores of both runs over the images that they share, with intervals over the same resampled images."""
    tables = [_counts(record, key) for record in (a, b)]
    images, edited = _shared_images(a, b, tables, split)
    if not images:
        raise SettingError(f"the runs share no image of {key}: both scored it, from the same photo, and against the same truth")
    counts_a, counts_b = (confusions_by_image(table, images, len(names)) for table in tables)
    scores = compared_scores(counts_a, counts_b, names)
    return {
        "images_shared": len(images),
        "images_of_edited_truth": edited,
        "miou": scores["miou"],
        "classes": [{"class": name} | difference for name, difference in scores["classes"].items()],
        "images": [without_nan(row) for row in most_changed_images(images, counts_a, counts_b, len(names), MAX_IMAGES)],
    }


def _counts(record: RunRecord, key: str) -> pd.DataFrame:
    counts = read_counts(record.output("evaluate") / "confusion.parquet")
    return counts[counts["result"] == key]


def _shared_images(a: RunRecord, b: RunRecord, tables: list[pd.DataFrame], split: str) -> tuple[list[str], int]:
    """Images that both runs scored against one truth, of photos that are the same byte for byte; and how many others only have
    another truth. Photos that the runs read at different sizes count as of one truth."""
    datasets = [_output(record, "dataset") for record in (a, b)]
    photos = shared_photos({"dataset": datasets[0]}, {"dataset": datasets[1]})
    scored = {id for id in set(tables[0]["image"]) & set(tables[1]["image"]) if (split, id) in photos}
    sizes = [_sizes(dataset, split) for dataset in datasets]
    edited = {id for id in edited_truths(*tables) & scored if sizes[0][id] == sizes[1][id]}
    return sorted(scored - edited), len(edited)


def _sizes(dataset: StageOutput, split: str) -> dict[str, tuple[int, int]]:
    """Height and width at which a run reads its photos."""
    rows = read_manifest(dataset.folder / "manifest.parquet").query("split == @split")
    return dict(zip(rows["id"], zip(rows["height"], rows["width"], strict=True), strict=True))


def comparison_job(a: RunRecord, b: RunRecord, comparison: dict[str, Any]) -> ComparisonJob:
    """What writes the page of `compare_runs`' answer into the store. SettingError where label maps or photos that it needs are
    gone."""
    key, split = comparison["result"], comparison["protocol"]["split"]
    kind = compared_result(key, split).kind
    jobs = [_job(record, MAKERS[kind]) for record in (a, b)]
    shared, _ = _shared_images(a, b, [_counts(record, key) for record in (a, b)], split)
    inputs = jobs[1].inputs | {f"A, {name}": output for name, output in jobs[0].inputs.items()}
    _check_photos(b, jobs[1])
    return ComparisonJob(
        COMPARE, jobs[1].run, jobs[1].environment, inputs, other=jobs[0], comparison=comparison, shared=tuple(shared)
    )


def _job(record: RunRecord, maker: str) -> Job:
    """A run's own outputs that the page reads."""
    data_folder = Path(record.data) if record.data else None
    environment = RunEnvironment(store=record.store, remote=remote_url(record.store), data=data_folder)
    stages = [
        stage for stage in ("world", "dataset", "knowledge", maker, "evaluate") if stage != "world" or stage in record.own
    ]
    return Job(COMPARE, record.run, environment, {stage: _output(record, stage) for stage in stages})


def _output(record: RunRecord, stage: str) -> StageOutput:
    output = find_output(record.store / stage / record.own[stage]) if stage in record.own else None
    if output is None:
        raise SettingError(f"run {record.title}: its {stage} was removed or damaged; run it again to compare it")
    return output


def _check_photos(record: RunRecord, job: Job) -> None:
    if "world" not in job.inputs and (job.environment.data is None or not job.environment.data.is_dir()):
        where = f"its photos in {job.environment.data} are not there any more"
        raise SettingError(f"run {record.title}: {where}; bring them back, or leave out --page")
