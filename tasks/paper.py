"""Stage `paper`: one table of the paper, from the runs that it compares → table.json, and archives of VOC's test images for
VOC's server.

table.json (excel-paper/1): `table`, `title`, `preset`, `method`, `clip`, `limit` (null: the whole data set, which makes ours
comparable with the published), and `rows`: `row`, its name; `ours` and `published`, mIoU in [0, 1]; `low` and `high`, the
interval of ours; `protocol`; `note`. In table 7 `ours` and `published` are words, beside `host GiB` and `GPU GiB`.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from artifacts.costs import gib, most
from artifacts.rows import duration
from excel_core.config import RunSpec
from excel_core.datasets.manifest import usable
from excel_core.datasets.voc_lists import list_file
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.voc_submission import VOC_ARCHIVE, write_voc_submission
from excel_core.paper.published import COSTS, IMAGES
from excel_core.paper.tables import TITLES, Number, paper_numbers
from excel_core.protocols import segmentation_protocol
from excel_core.stores import read_json, read_manifest, write_json
from tasks.engine.outputs import StageOutput
from tasks.engine.stage import Need, Place, Stage, Work
from tasks.inputs.vision import classes_of

__all__ = ["STAGE"]

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
        "limit": run.paper.limit,
        "rows": rows,
    }
    write_json(work.folder / "table.json", document)
    return {"rows": len(rows)}


def _row(work: Work, number: Number) -> dict[str, Any]:
    row: dict[str, Any] = {"row": number.row, "ours": None, "published": number.published, "note": number.note}
    if number.run is None:
        return row
    if number.archive:
        archive = _archive(work, number)
        words = f"VOC's server scores {archive.relative_to(work.folder)}"
        return row | {"protocol": segmentation_protocol(number.run, TEST, number.archive), "note": words}
    metrics = read_json(work.input(_evaluated(number)) / "metrics.json")
    result = metrics["results"].get(number.result)
    if result is None:
        reasons = "; ".join(f"{skipped}: {reason}" for skipped, reason in metrics["skipped"].items())
        return row | {"note": f"not scored: {reasons or f'the run has no {number.result}'}"}
    low, high = result["miou_interval"]
    return row | {"ours": result["miou"], "low": low, "high": high, "protocol": result["protocol"]}


def _archive(work: Work, number: Number) -> Path:
    """Pack a variant's label maps of the test images as VOC's server takes them."""
    assert number.run is not None
    predicted, dataset = work.input(f"predict: {number.row}"), work.input(f"dataset: {number.row}")
    rows = usable(read_manifest(dataset / "manifest.parquet"), TEST)
    folder = work.folder / "submissions" / number.archive
    folder.mkdir(parents=True)
    maps = [
        LabelMap(row.id, predicted / number.archive / TEST / f"{row.id}.png", Path(row.image).name) for row in rows.itertuples()
    ]
    write_voc_submission(folder, classes_of(work), maps)
    return folder / VOC_ARCHIVE


def _cost_rows(work: Work) -> list[dict[str, Any]]:
    """Time and peak memory of every stage, then the sums that the paper prints."""
    outputs = {name: work.inputs[name] for name in COSTLY}
    rows = [_cost(name, [output]) for name, output in outputs.items()]
    rows.append(_cost("all stages", outputs.values()))
    free = _cost("training-free: knowledge, cams, refine", [outputs[name] for name in TRAINING_FREE])
    trained = _cost("training", [outputs["train"]])
    published = COSTS if work.run.preset in IMAGES else {}
    free["published"] = f"{published['training-free, GPU']} GPU" if published else None
    trained["published"] = f"{published['training, time']}; {published['training, GPU']} GPU" if published else None
    note = "published: one RTX 3090" if published else ""
    return [*rows, free | {"note": note}, trained | {"note": note}]


def _cost(row: str, outputs: Iterable[StageOutput]) -> dict[str, Any]:
    costs = list(outputs)
    host, gpu = (gib(most([getattr(cost, peak) for cost in costs])) for peak in ("peak_host_bytes", "peak_gpu_bytes"))
    seconds = sum(cost.seconds for cost in costs)
    return {"row": row, "ours": duration(seconds), "host GiB": host, "GPU GiB": gpu, "published": None, "note": ""}


def _numbers(run: RunSpec, place: Place) -> list[Number]:
    return paper_numbers(run, run.paper.table, has_test=_has_test(run, place))


def _has_test(run: RunSpec, place: Place) -> bool:
    """Whether the data list VOC's test images."""
    return run.dataset.layout == "voc" and place.data is not None and list_file(place.data, TEST) is not None


def _evaluated(number: Number) -> str:
    return f"evaluate: {number.row}"


def _needs(run: RunSpec, place: Place) -> dict[str, Need]:
    """The outputs that the table is made of: scores or label maps of every row's run. Rows of equal runs share them."""
    if run.paper.table == "table-7":
        return {name: Need(name, run) for name in COSTLY}
    needs = {}
    for number in _numbers(run, place):
        if number.run is not None and number.archive:
            needs |= {f"{stage}: {number.row}": Need(stage, number.run) for stage in ("predict", "dataset")}
        elif number.run is not None:
            needs[_evaluated(number)] = Need("evaluate", number.run)
    return needs


def _spec(run: RunSpec) -> dict[str, Any]:
    return {"paper": run.paper.model_dump(mode="json"), "names": [run.preset, run.method, run.clip.model]}


STAGE = Stage("paper", ("knowledge",), _spec, build_paper, needs=_needs)
