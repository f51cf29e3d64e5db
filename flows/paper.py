"""The flow `paper`: a table of the paper, ours beside the published figures, or figures 4 to 6, through the ordinary stages.

(No `from __future__ import annotations` here: Prefect needs the types themselves.)
"""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow, task
from pydantic import Field

from artifacts.paper_table import joined_tables
from artifacts.prefect_artifacts import publish_figures, publish_paper
from excel_core.files import read_json, write_json
from flows.chain_run import run_until
from flows.paper_runs import Paper, paper_runs
from flows.parameters import Device, Gpus, Method, Runner, Setting, Text
from flows.settings import check_runner

__all__ = ["paper"]

Limit = Annotated[int, Field(ge=1)]


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
        coco: MS COCO 2014 as downloaded, for its rows in tables 1 and 7; empty: they are left out.
        checkpoint: A segmenter that the published code trained, instead of training the full method.
        limit: Images of each split, to try a table out; the result is no reproduction.
        method: How to compute: as the published code does, as the paper's equations are printed, or cleaned up.
        store: Folder of all outputs; empty: the worker's $EXCEL_STORE, else runs/.
        clip: excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE; empty: ViT-B-16:openai.
        device: Where tensors live.
        gpus: Processes that train together, a GPU each.
        runner: sequential (in the flow's own process), dask (workers on this machine) or dask:tcp://HOST:PORT.
        settings: Edits as text, each stage.field=value with a YAML value; with voc. or coco. before it, of that data set alone.
    """
    runs = paper_runs(table, data, coco, checkpoint, limit, method, store, clip, device, gpus, settings)
    check_runner(runner)
    if table == "figures":
        [(run, place)] = runs
        folder = run_until("figures", run, place, runner).outputs["figures"].folder
        _publish_figures(str(folder))
        return str(folder / "figures.json")
    tables = [_table_in(run_until("paper", run, place, runner).outputs["paper"].folder) for run, place in runs]
    whole = runs[0][1].store / "paper" / f"{table}.json"
    write_json(whole, joined_tables(tables))
    _publish_table(table, str(whole))
    return str(whole)


def _table_in(folder: Path) -> dict[str, Any]:
    """A stage's table.json, with whole paths to its archives."""
    table: dict[str, Any] = read_json(folder / "table.json")
    rows = [row | ({"archive": str(folder / row["archive"])} if "archive" in row else {}) for row in table["rows"]]
    return table | {"rows": rows}


@task(name="artifacts", cache_policy=None, persist_result=False)
def _publish_table(table: str, path: str) -> list[str]:
    return publish_paper(table, Path(path))


@task(name="artifacts", cache_policy=None, persist_result=False)
def _publish_figures(folder: str) -> list[str]:
    return publish_figures(Path(folder))
