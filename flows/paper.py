"""The flow `paper`: a table of the paper, ours beside the published figures, or figures 4 to 6, through the ordinary stages."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from artifacts.paper.table import joined_tables
from artifacts.prefect_artifacts.publish import publish_figures, publish_paper
from excel_core.checked_files import write_checked_json
from excel_core.config import RunSpec
from excel_core.files import read_json
from flows.chain_run import chain_run
from flows.local.reports import report_link
from flows.parameters import paper_flow
from flows.request import PaperRequest
from flows.retention import kept_pictures
from tasks.engine.stage import RunEnvironment

__all__ = ["paper"]


@paper_flow("paper")
def paper(request: PaperRequest) -> str:
    """A table of the paper beside the published figures, or figures 4 to 6. Returns the path of its JSON."""
    runs = request.resolve()
    pictures = kept_pictures()
    stage = "figures" if request.table == "figures" else "paper"
    folders = [_folder(run, environment, stage, request.runner) for run, environment in runs]
    if stage == "figures":
        [folder] = folders
        _publish_figures(str(folder), report_link(runs[0].environment.store, folder), pictures)
        return str(folder / "figures.json")
    path = runs[0].environment.store / "paper" / f"{request.table}.json"
    write_checked_json(path, joined_tables([_table_in(folder) for folder in folders]))
    _publish_table(request.table, str(path))
    return str(path)


def _folder(run: RunSpec, environment: RunEnvironment, stage: str, runner: str) -> Path:
    with chain_run(run, environment, stage, runner) as chain:
        return chain.until_last().folder


def _table_in(folder: Path) -> dict[str, Any]:
    """A stage's table.json, with whole paths to its archives."""
    table: dict[str, Any] = read_json(folder / "table.json")
    rows = [row | ({"archive": str(folder / row["archive"])} if "archive" in row else {}) for row in table["rows"]]
    return table | {"rows": rows}


@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish_table(table: str, path: str) -> list[str]:
    return publish_paper(table, Path(path))


@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish_figures(folder: str, link: str, keep_pictures: int) -> list[str]:
    return publish_figures(Path(folder), link, keep_pictures)
