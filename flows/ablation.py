"""The flow `ablation`: the rows of the paper's tables 3, 4 and 5 and the methods, over seeds, as a table and a chart."""

from typing import Any

from prefect import task

from artifacts.prefect_artifacts import publish_ablation
from excel_core.config import RunSpec
from excel_core.files import read_json
from flows.chain_run import run_until
from flows.parameters import chain_flow
from tasks.engine.stage import RunEnvironment

__all__ = ["ablation"]


@chain_flow("ablation")
def ablation(run: RunSpec, place: RunEnvironment, runner: str) -> str:
    """Score raw CAMs of every row of the ablation, sharing every stage that rows share. Returns ablation.json's path."""
    path = run_until("ablation", run, place, runner).outputs["ablation"].folder / "ablation.json"
    _publish({"ablation": read_json(path)}, run.preset)
    return str(path)


@task(name="artifacts", cache_policy=None, persist_result=False)
def _publish(metrics: dict[str, Any], preset: str) -> list[str]:
    return publish_ablation(metrics, preset)
