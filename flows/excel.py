"""The flow `excel`: the whole chain, every stage cached, then what a person looks at in the Prefect UI."""

from flows.chain_run import chain_run
from flows.parameters import logged_flow
from flows.published_report import publish_report
from flows.request import LoggedRequest
from flows.retention import kept_pictures
from tasks.engine.output import StageOutput
from tasks.pipeline import report_job

__all__ = ["excel"]


@logged_flow("excel")
def excel(request: LoggedRequest) -> str:
    """Image-level labels → pseudo masks → trained segmenter → report. Returns the report's path."""
    run, environment = request.resolve()
    pictures = kept_pictures()
    with chain_run(run, environment, "report", request.runner, request.log) as stage:
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
    page = str(report.folder / "index.html")
    publish_report(report_job(run, environment, stage.outputs), frozenset(stage.cached), page, pictures)
    return page
