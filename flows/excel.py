"""The flow `excel`: the whole chain, every stage cached, then what a person looks at in the Prefect UI."""

from prefect import task

from artifacts.prefect_artifacts import publish
from excel_core.config import RunSpec
from flows.chain_run import run_until
from flows.parameters import chain_flow
from tasks.chain import report_work
from tasks.engine.stage import RunEnvironment, Work
from tasks.report import build_view

__all__ = ["excel"]


@chain_flow("excel")
def excel(run: RunSpec, place: RunEnvironment, runner: str) -> str:
    """Image-level labels → pseudo masks → trained segmenter → report. Returns the report's path."""
    chain = run_until("report", run, place, runner)
    # Never cached, so that every run shows its tables and pictures.
    _publish(report_work(run, place, chain.outputs), chain.cached)
    return str(chain.outputs["report"].folder / "index.html")


@task(name="artifacts", cache_policy=None, persist_result=False)
def _publish(work: Work, cached: frozenset[str]) -> list[str]:
    return publish(build_view(work, cached), work.folder / "index.html")
