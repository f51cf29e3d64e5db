"""The flow `paper`: a table or the figures of the paper, ours beside what was published, through the ordinary stages.

(No `from __future__ import annotations` here: Prefect needs the types themselves.)
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow, task
from pydantic import Field

from artifacts.paper_table import joined_tables
from artifacts.prefect_artifacts import publish_paper
from excel_core.config import RunSpec
from excel_core.errors import SettingError
from excel_core.paper.tables import limited
from excel_core.presets import with_edits
from excel_core.stores import read_json, write_json
from flows.chain_run import run_until
from flows.parameters import Device, Gpus, Method, Runner, Setting, Text
from flows.settings import check_runner, make_place, make_run
from tasks.engine.stage import Place

__all__ = ["Paper", "paper", "paper_runs"]

Paper = Literal["table-1", "table-2", "table-3", "table-4", "table-5", "table-6", "table-7", "figures"]
Limit = Annotated[int, Field(ge=1)]
WITH_COCO = ("table-1", "table-7")


@flow(name="paper", persist_result=False)
def paper(
    table: Paper = "table-1",
    data: Text | None = None,
    coco: Text | None = None,
    checkpoint: Text | None = None,
    limit: Limit | None = None,
    method: Method = "reference",
    store: Text | None = None,
    clip: Text | None = None,
    device: Device = "cpu",
    gpus: Gpus = 1,
    runner: Runner = "sequential",
    settings: list[Setting] = [],  # noqa: B006  Prefect shows it as the form's default; it is never changed
) -> str:
    """A table of the paper beside the published figures, or figures 4 to 6. Returns the path of its JSON.

    Args:
        table: table-1 to table-7, or figures.
        data: PASCAL VOC 2012, as downloaded.
        coco: MS COCO 2014 as downloaded, for the rows of tables 1 and 7 that are about it; empty: they are left out.
        checkpoint: A segmenter that the published code trained, instead of training the full method.
        limit: So many images of each split, to try it out; the result is no reproduction.
        method: How to compute: as the published code does, as the paper's equations are printed, or cleaned up.
        store: Folder of all outputs; empty: the worker's $EXCEL_STORE, else runs/.
        clip: excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE; empty: ViT-B-16:openai.
        device: Where tensors live.
        gpus: Processes that train together, a GPU each.
        runner: sequential (in the flow's own process), dask (workers on this machine) or dask:tcp://HOST:PORT.
        settings: Edits as text, each stage.field=value with a YAML value.
    """
    runs = paper_runs(table, data, coco, checkpoint, limit, method, store, clip, device, gpus, settings)
    check_runner(runner)
    stage = "figures" if table == "figures" else "paper"
    folders = [run_until(stage, run, place, runner).outputs[stage].folder for run, place in runs]
    whole = folders[0] / "figures.json"
    if table != "figures":
        whole = runs[0][1].store / "paper" / f"{table}.json"
        write_json(whole, joined_tables([read_json(folder / "table.json") for folder in folders]))
    _publish(table, str(whole))
    return str(whole)


def paper_runs(
    table: str,
    data: str | None,
    coco: str | None,
    checkpoint: str | None,
    limit: int | None,
    method: str,
    store: str | None,
    clip: str | None,
    device: str,
    gpus: int,
    settings: list[str],
) -> list[tuple[RunSpec, Place]]:
    """A run and its place for each data set that is named. Anything wrong is refused here, before work starts."""
    if coco is not None and table not in WITH_COCO:
        raise SettingError(f"--coco: {table} is about VOC alone; COCO stands in {' and '.join(WITH_COCO)}")
    if data is None and coco is None:
        raise SettingError("name the data: --data DIR for PASCAL VOC 2012, --coco DIR for MS COCO")
    own = [f"train.from_checkpoint={checkpoint}"] if checkpoint else []
    runs = []
    for preset, folder in (("voc", data), ("coco", coco)):
        if folder is not None:
            run = make_run(preset, method, [], clip)
            run = limited(run, limit) if limit else run
            edited = make_run(preset, method, settings + own, clip, _changes(run))
            if table != "figures":
                edited = with_edits(edited, {"paper": {"table": table, "limit": limit}})
            runs.append((edited, make_place(edited, folder, store, device, gpus)))
    return runs


def _changes(run: RunSpec) -> dict[str, Any]:
    """The fields that a limit changes, as edits that a user's own win over."""
    train = {field: getattr(run.train, field) for field in ("iterations", "warmup", "dynamic_from", "own_argmax_from")}
    return {"dataset": {"max_images": run.dataset.max_images, "partial": run.dataset.partial}, "train": train}


@task(name="artifacts", cache_policy=None, persist_result=False)
def _publish(table: str, path: str) -> list[str]:
    return publish_paper(table, Path(path))
