"""Stage `paper`: one table of the paper, from the runs that it compares → table.json, and archives of VOC's test images for
VOC's server.

table.json (excel-paper/1): `table`, `title`, `preset`, `method`, `clip`, `limit` (null: the whole data set, which makes ours
comparable with the published), and `rows`: `row`, its name; `ours` and `published`, mIoU in [0, 1]; `low` and `high`, the
interval of ours; `protocol`; `note`; `archive`, its path in the folder. In table 7 `ours` and `published` are words, beside
`host GiB` and `GPU GiB`.
"""

from collections.abc import Iterable
from typing import Any

from artifacts.costs import gib, most
from artifacts.rows import duration
from excel_core.config import RunSpec
from excel_core.datasets.manifest import usable
from excel_core.datasets.voc_lists import image_file, list_file, read_split
from excel_core.evaluation.protocols import segmentation_protocol
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.voc_submission import VOC_ARCHIVE, write_voc_submission
from excel_core.files import read_json, write_json
from excel_core.paper.published import COSTS
from excel_core.paper.tables import TITLES, Number, paper_numbers
from excel_core.stores import read_manifest
from excel_core.text.class_sets import class_set
from tasks.engine.outputs import StageOutput
from tasks.engine.stage import Dependency, RunEnvironment, Stage, Work
from tasks.inputs.cam_model import classes_of

__all__ = ["STAGE", "table_runs"]

TEST = "test"
# Stages of table 7, in the order in which they run.
COSTLY = ("dataset", "describe", "knowledge", "cams", "refine", "train", "dynamic", "predict", "evaluate")
TRAINING_FREE = ("knowledge", "cams", "refine")


def build_paper(work: Work) -> dict[str, Any]:
    """Put every number beside its published figure."""
    run, table = work.run, work.run.paper.table
    rows = _cost_rows(work) if table == "table-7" else [_row(work, number) for number in _numbers(run, work.place)]
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
    write_json(work.folder / "table.json", document)
    return {"rows": len(rows)}


def _row(work: Work, number: Number) -> dict[str, Any]:
    row: dict[str, Any] = {"row": number.row, "ours": None, "published": number.published, "note": number.note}
    if number.run is None:
        return row
    if number.archive:
        return row | _archived(work, number.run, number)
    metrics = read_json(work.input(number.row) / "metrics.json")
    result = metrics["results"].get(number.result)
    if result is None:
        reasons = "; ".join(f"{skipped}: {reason}" for skipped, reason in metrics["skipped"].items())
        return row | {"note": f"not scored: {reasons or f'the run has no {number.result}'}"}
    low, high = result["miou_interval"]
    return row | {"ours": result["miou"], "low": low, "high": high, "protocol": result["protocol"]}


def _archived(work: Work, run: RunSpec, number: Number) -> dict[str, Any]:
    """Pack a variant's label maps of the test images as VOC's server takes them; where they are, and what is in there."""
    predicted, dataset = (work.inputs[_input(number, stage)] for stage in ("predict", "dataset"))
    if number.archive not in predicted.summary["variants"]:
        return {"note": f"not made: the run has no {number.archive}"}
    folder = work.folder / "submissions" / number.archive
    folder.mkdir(parents=True)
    rows = usable(read_manifest(dataset.folder / "manifest.parquet"), TEST)
    files = {row.id: predicted.folder / number.archive / TEST / f"{row.id}.png" for row in rows.itertuples()}
    maps = [LabelMap(image, path) for image, path in files.items() if path.is_file()]
    write_voc_submission(folder, classes_of(work), maps)
    protocol = segmentation_protocol(run, TEST, number.archive) | {"images": len(maps)}
    archive = (folder / VOC_ARCHIVE).relative_to(work.folder).as_posix()
    return {"protocol": protocol, "note": "VOC's server scores the archive below", "archive": archive}


def _cost_rows(work: Work) -> list[dict[str, Any]]:
    """Time and peak memory of every stage, then the sums that the paper prints."""
    outputs = {name: work.inputs[name] for name in COSTLY}
    rows = [_cost(name, [output]) for name, output in outputs.items()]
    rows.append(_cost("all stages", outputs.values()))
    free = _cost("training-free: knowledge, cams, refine", [outputs[name] for name in TRAINING_FREE])
    trained = _cost("training", [outputs["train"]])
    return [*rows, free | _published(work.run, "training-free"), trained | _published(work.run, "training")]


def _published(run: RunSpec, what: str) -> dict[str, Any]:
    """What was published of a cost, and on what."""
    cost = COSTS.get((run.preset, what))
    return {"published": cost, "note": "published: one RTX 3090"} if cost else {}


def _cost(row: str, outputs: Iterable[StageOutput]) -> dict[str, Any]:
    costs = list(outputs)
    host, gpu = (gib(most([getattr(cost, peak) for cost in costs])) for peak in ("peak_host_bytes", "peak_gpu_bytes"))
    seconds = sum(cost.seconds for cost in costs)
    return {"row": row, "ours": duration(seconds), "host GiB": host, "GPU GiB": gpu, "published": None, "note": ""}


def _numbers(run: RunSpec, place: RunEnvironment) -> list[Number]:
    return paper_numbers(run, run.paper.table, has_test=_has_test(run, place))


def table_runs(run: RunSpec, place: RunEnvironment) -> list[RunSpec]:
    """The runs that the run's table compares, each once."""
    runs = [number.run for number in _numbers(run, place) if number.run is not None]
    return [one for i, one in enumerate(runs) if one not in runs[:i]]


def _has_test(run: RunSpec, place: RunEnvironment) -> bool:
    """Whether the data list VOC's test images and have any of them."""
    data = place.data
    if run.dataset.layout != "voc" or data is None or list_file(data, TEST) is None:
        return False
    return any(image_file(data, image) for image in read_split(data, TEST, class_set(run, data).class_names))


def _input(number: Number, stage: str) -> str:
    """What an input of a row with an archive is called, which has two."""
    return f"{number.row}, {stage}"


def _needs(run: RunSpec, place: RunEnvironment) -> dict[str, Dependency]:
    """The outputs that the table is made of: scores, or label maps to pack, of every row's run. Equal runs share them."""
    if run.paper.table == "table-7":
        return {name: Dependency(name, run) for name in COSTLY}
    needs = {}
    for number in _numbers(run, place):
        if number.run is not None and number.archive:
            needs |= {_input(number, stage): Dependency(stage, number.run) for stage in ("predict", "dataset")}
        elif number.run is not None:
            needs[number.row] = Dependency("evaluate", number.run)
    return needs


def _spec(run: RunSpec) -> dict[str, Any]:
    return {"paper": run.paper.model_dump(mode="json"), "names": [run.preset, run.method, run.clip.model]}


STAGE = Stage("paper", ("knowledge",), _spec, build_paper, needs=_needs)
