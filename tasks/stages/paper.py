"""Stage `paper`: one table of the paper, from the runs that it compares → table.json, and archives of VOC's test images for
VOC's server.

table.json (excel-paper/1): `table`, `title`, `preset`, `method`, `clip`, `limit` (null: the whole data set, which makes ours
comparable with the published), and `rows`: `row`, its name; `ours` and `published`, mIoU in [0, 1]; `low` and `high`, the
interval of ours; `protocol`; `note`; `archive`, its path in the folder. In table 7 `ours` and `published` are words, beside
`host GiB` and `GPU GiB`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from artifacts.rows import duration
from artifacts.stages import gibibytes, largest_known
from excel_core.config import RunSpec
from excel_core.datasets.manifest import usable
from excel_core.datasets.voc import image_file, list_file, read_split
from excel_core.evaluation.protocols import segmentation_protocol
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.voc_submission import VOC_ARCHIVE, write_voc_submission
from excel_core.files import read_json, write_json
from excel_core.paper.published import COSTS
from excel_core.paper.tables import TITLES, TableRow, paper_table_rows
from excel_core.stores import read_manifest
from excel_core.text.class_sets import class_set
from tasks.engine.output import StageOutput, StageResult
from tasks.engine.stage import Dependency, Job, RunEnvironment
from tasks.inputs.models import classes_of
from tasks.stages.predict import PredictResult

__all__ = ["PaperResult", "fill_table", "settings", "table_inputs", "table_runs"]

TEST = "test"
# Stages of table 7, in the order in which they run.
COSTLY = ("dataset", "describe", "knowledge", "cams", "refine", "train", "dynamic", "predict", "evaluate")
TRAINING_FREE = ("knowledge", "cams", "refine")


class PaperResult(StageResult):
    """Rows of the table."""

    rows: int


def fill_table(job: Job, folder: Path) -> PaperResult:
    """Put every number beside its published figure."""
    run, table = job.run, job.run.paper.table
    rows = _cost_rows(job) if table == "table-7" else [_row(job, folder, number) for number in _numbers(run, job.environment)]
    document = {
        "format": "excel-paper/1",
        "table": table,
        "title": TITLES[table],
        "preset": run.preset,
        "method": run.method,
        "clip": run.clip.model,
        "limit": run.dataset.max_images or run.paper.limit,
        "rows": rows,
    }
    write_json(folder / "table.json", document)
    return PaperResult(rows=len(rows))


def _row(job: Job, folder: Path, number: TableRow) -> dict[str, Any]:
    row: dict[str, Any] = {"row": number.row, "ours": None, "published": number.published, "note": number.note}
    if number.run is None:
        return row
    if number.archive:
        return row | _archived(job, folder, number.run, number)
    metrics = read_json(job.folder(number.row) / "metrics.json")
    result = metrics["results"].get(number.result)
    if result is None:
        reasons = "; ".join(f"{skipped}: {reason}" for skipped, reason in metrics["skipped"].items())
        return row | {"note": f"not scored: {reasons or f'the run has no {number.result}'}"}
    low, high = result["miou_interval"]
    return row | {"ours": result["miou"], "low": low, "high": high, "protocol": result["protocol"]}


def _archived(job: Job, folder: Path, run: RunSpec, number: TableRow) -> dict[str, Any]:
    """Pack a variant's label maps of the test images as VOC's server takes them; where they are, and what is in there."""
    predicted, dataset = (job.inputs[_input(number, stage)] for stage in ("predict", "dataset"))
    if number.archive not in predicted.result_as(PredictResult).variants:
        return {"note": f"not made: the run has no {number.archive}"}
    submission = folder / "submissions" / number.archive
    submission.mkdir(parents=True)
    rows = usable(read_manifest(dataset.folder / "manifest.parquet"), TEST)
    ids = rows["id"].tolist()
    files = {image: predicted.folder / number.archive / TEST / f"{image}.png" for image in ids}
    maps = [LabelMap(image, path) for image, path in files.items() if path.is_file()]
    write_voc_submission(submission, classes_of(job), maps)
    protocol = segmentation_protocol(run, TEST, number.archive) | {"images": len(maps)}
    archive = (submission / VOC_ARCHIVE).relative_to(folder).as_posix()
    return {"protocol": protocol, "note": "VOC's server scores the archive below", "archive": archive}


def _cost_rows(job: Job) -> list[dict[str, Any]]:
    """Time and peak memory of every stage, then the sums that the paper prints."""
    outputs = {name: job.inputs[name] for name in COSTLY}
    rows = [_cost(name, [output]) for name, output in outputs.items()]
    rows.append(_cost("all stages", outputs.values()))
    free = _cost("training-free: knowledge, cams, refine", [outputs[name] for name in TRAINING_FREE])
    trained = _cost("training", [outputs["train"]])
    return [*rows, free | _published(job.run, "training-free"), trained | _published(job.run, "training")]


def _published(run: RunSpec, what: str) -> dict[str, Any]:
    """What was published of a cost, and on what."""
    cost = COSTS.get((run.preset, what))
    return {"published": cost, "note": "published: one RTX 3090"} if cost else {}


def _cost(row: str, outputs: Iterable[StageOutput]) -> dict[str, Any]:
    costs = list(outputs)
    host = gibibytes(largest_known(cost.peak_host_bytes for cost in costs))
    gpu = gibibytes(largest_known(cost.peak_gpu_bytes for cost in costs))
    seconds = sum(cost.seconds for cost in costs)
    return {"row": row, "ours": duration(seconds), "host GiB": host, "GPU GiB": gpu, "published": None, "note": ""}


def _numbers(run: RunSpec, environment: RunEnvironment) -> list[TableRow]:
    return paper_table_rows(run, run.paper.table, has_test=_has_test(run, environment))


def table_runs(run: RunSpec, environment: RunEnvironment) -> list[RunSpec]:
    """The runs that the run's table compares, each once."""
    runs = [number.run for number in _numbers(run, environment) if number.run is not None]
    return [one for i, one in enumerate(runs) if one not in runs[:i]]


def _has_test(run: RunSpec, environment: RunEnvironment) -> bool:
    """Whether the data list VOC's test images and have any of them."""
    data = environment.data
    if run.dataset.layout != "voc" or data is None or list_file(data, TEST) is None:
        return False
    return any(image_file(data, image) for image in read_split(data, TEST, class_set(run, data).class_names))


def _input(number: TableRow, stage: str) -> str:
    """What an input of a row with an archive is called, which has two."""
    return f"{number.row}, {stage}"


def table_inputs(run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
    """The outputs that the table is made of: scores, or label maps to pack, of every row's run. Equal runs share them."""
    if run.paper.table == "table-7":
        return {name: Dependency(name, run) for name in COSTLY}
    dependencies: dict[str, Dependency] = {}
    for number in _numbers(run, environment):
        if number.run is not None and number.archive:
            dependencies |= {_input(number, stage): Dependency(stage, number.run) for stage in ("predict", "dataset")}
        elif number.run is not None:
            dependencies[number.row] = Dependency("evaluate", number.run)
    return dependencies


def settings(run: RunSpec) -> dict[str, Any]:
    """Which table, and of what."""
    return {"paper": run.paper.model_dump(mode="json"), "names": [run.preset, run.method, run.clip.model]}
