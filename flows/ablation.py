"""The flow `ablation`: the rows of the paper's tables 3, 4 and 5 and the methods, over seeds, as a table and a chart."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts import publish_ablation
from excel_core.files import read_json
from flows.chain_run import chain_run
from flows.parameters import chain_flow
from flows.request import RunRequest
from flows.retention import kept_pictures

__all__ = ["ablation"]


@chain_flow("ablation")
def ablation(request: RunRequest) -> str:
    """Score raw CAMs of every row of the ablation, sharing every stage that rows share. Returns ablation.json's path."""
    run, environment = request.resolve()
    pictures = kept_pictures()
    with chain_run(run, environment, "ablation", request.runner) as chain:
        path = chain.until_last().folder / "ablation.json"
    _publish({"ablation": read_json(path)}, run.preset, pictures)
    return str(path)


@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish(metrics: dict[str, Any], preset: str, keep_pictures: int) -> list[str]:
    return publish_ablation(metrics, preset, keep_pictures)
