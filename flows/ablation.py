"""The flows `ablation` and `upgrades`: the rows of the paper's tables 3, 4 and 5 and the methods, over seeds, and each
training-free upgrade alone, as a table and a chart."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts.publish import publish_ablation
from excel_core.config import RunSpec
from excel_core.files import read_json
from flows.chain_run import chain_run
from flows.parameters import chain_flow
from flows.request import RunRequest
from flows.retention import kept_pictures
from tasks.engine.stage import RunEnvironment

__all__ = ["ablation", "upgrades"]


@chain_flow("ablation")
def ablation(request: RunRequest) -> str:
    """Score raw CAMs of every row of the ablation, sharing every stage that rows share. Returns ablation.json's path."""
    run, environment = request.resolve()
    return _scored_rows(run, environment, request.runner, run.preset)


@chain_flow("upgrades")
def upgrades(request: RunRequest) -> str:
    """Score each training-free upgrade alone: raw CAMs, then pseudo labels. Returns ablation.json's path."""
    run, environment = request.resolve()
    alone = run.model_copy(update={"ablation": run.ablation.model_copy(update={"groups": ("upgrades",)})})
    return _scored_rows(alone, environment, request.runner, f"upgrades-{run.preset}")


def _scored_rows(run: RunSpec, environment: RunEnvironment, runner: str, title: str) -> str:
    pictures = kept_pictures()
    with chain_run(run, environment, "ablation", runner) as chain:
        path = chain.until_last().folder / "ablation.json"
    _publish({"ablation": read_json(path)}, title, pictures)
    return str(path)


@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish(metrics: dict[str, Any], title: str, keep_pictures: int) -> list[str]:
    return publish_ablation(metrics, title, keep_pictures)
