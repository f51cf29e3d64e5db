"""A finished report in the Prefect UI, for the flows that end with one."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts.publish import publish
from flows.local.reports import report_link
from tasks.engine.stage import Job
from tasks.stages.report import make_view

__all__ = ["publish_report"]


# Never cached, so that every run shows its tables and pictures, or where the same ones are.
@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def publish_report(job: Job, cached: frozenset[str], page: str, keep_pictures: int) -> list[str]:
    """The artifacts of the report's job, whose page is `page` → their keys. `cached`: stages that the run found complete."""
    link = report_link(job.environment.store, Path(page))
    return publish(make_view(job, cached), Path(page), link, keep_pictures)
