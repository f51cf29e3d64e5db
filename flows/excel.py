"""The flow `excel`: the whole chain, every stage cached, then what a person looks at in the Prefect UI."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts.publish import publish
from flows.chain_run import chain_run
from flows.local.reports import report_link
from flows.parameters import chain_flow
from flows.request import RunRequest
from flows.retention import kept_pictures
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job
from tasks.pipeline import report_job
from tasks.stages.report import make_view

__all__ = ["excel"]


@chain_flow("excel")
def excel(request: RunRequest) -> str:
    """Image-level labels → pseudo masks → trained segmenter → report. Returns the report's path."""
    run, environment = request.resolve()
    pictures = kept_pictures()
    with chain_run(run, environment, "report", request.runner) as stage:
        dataset = stage("dataset")
        descriptions = stage("describe")
        knowledge = stage("knowledge", descriptions)
        cams = stage("cams", dataset, knowledge)
        seeds = stage("refine", dataset, knowledge, cams)
        trained: tuple[StageOutput, ...] = ()
        learnt: tuple[StageOutput, ...] = ()
        if run.train.enabled:  # else the method ends with its seeds
            segmenter = stage("train", dataset, knowledge, seeds)
            pseudo_labels = stage("dynamic", dataset, knowledge, segmenter)
            segmentation = stage("predict", dataset, knowledge, segmenter)
            trained, learnt = (segmenter,), (pseudo_labels, segmentation)
        metrics = stage("evaluate", dataset, knowledge, seeds, *learnt)
        report = stage("report", dataset, descriptions, knowledge, cams, seeds, *trained, *learnt, metrics)
    page = report.folder / "index.html"
    _publish(report_job(run, environment, stage.outputs), frozenset(stage.cached), str(page), pictures)
    return str(page)


# Never cached, so that every run shows its tables and pictures, or where the same ones are.
@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish(job: Job, cached: frozenset[str], page: str, keep_pictures: int) -> list[str]:
    link = report_link(job.environment.store, Path(page))
    return publish(make_view(job, cached), Path(page), link, keep_pictures)
