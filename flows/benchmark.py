"""The flow `benchmark`: methods on the same images through the ordinary stages, as tables, charts and galleries."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts.publish import publish_benchmark
from flows.chain_run import chain_run
from flows.local.reports import report_link
from flows.parameters import benchmark_flow
from flows.request import BenchmarkRequest
from flows.retention import kept_pictures

__all__ = ["benchmark"]


@benchmark_flow("benchmark")
def benchmark(request: BenchmarkRequest) -> str:
    """Compare methods on the same images, sharing every stage that they share. Returns benchmark.json's path."""
    run, environment = request.resolve()
    pictures = kept_pictures()
    with chain_run(run, environment, "benchmark", request.runner) as chain:
        folder = chain.until_last().folder
    _publish(str(folder), report_link(environment.store, folder / "index.html"), pictures)
    return str(folder / "benchmark.json")


@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish(folder: str, link: str, keep_pictures: int) -> list[str]:
    return publish_benchmark(Path(folder), link, keep_pictures)
