"""Each stage as a flow of its own: it runs that stage and, where they are not complete yet, the ones it needs. What it made is
then seen in the Prefect UI."""

from prefect import Flow, task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts.publish import publish_stage
from flows.chain_run import chain_run
from flows.parameters import chain_flow, logged_flow
from flows.published_report import publish_report
from flows.request import LoggedRequest, RunRequest
from flows.retention import kept_pictures
from tasks.engine.stage import Job, mask_access
from tasks.pipeline import STAGES, report_job
from tasks.stage_view import stage_pages, stage_view

__all__ = ["cams", "dataset", "describe", "dynamic", "evaluate", "knowledge", "predict", "refine", "report", "train"]


def _stage_flow(name: str) -> Flow[..., str]:
    description = f"Run stage {name!r} and what it needs. Returns its output folder."

    def run_stage(request: RunRequest) -> str:
        run, environment = request.resolve()
        pictures = kept_pictures()
        log = request.log if isinstance(request, LoggedRequest) else None
        with chain_run(run, environment, name, request.runner, log) as chain:
            folder = chain.until_last().folder
        if name == "report":
            job = report_job(run, environment, chain.outputs)
            publish_report(job, frozenset(chain.cached), str(folder / "index.html"), pictures)
        else:
            _publish_stage(Job(STAGES[name], run, environment, chain.outputs), frozenset(chain.cached), pictures)
        return str(folder)

    return logged_flow(name, description)(run_stage) if name == "train" else chain_flow(name, description)(run_stage)


# Never cached, as in flows/published_report.py.
@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish_stage(job: Job, cached: frozenset[str], keep_pictures: int) -> list[str]:
    with mask_access(Job(STAGES["report"], job.run, job.environment, job.inputs)):  # which may open none, `evaluate` or not
        view, pages = stage_view(job, cached), stage_pages(job)
    return publish_stage(job.stage.name, view, pages, job.folder(job.stage.name), keep_pictures)


dataset = _stage_flow("dataset")
describe = _stage_flow("describe")
knowledge = _stage_flow("knowledge")
cams = _stage_flow("cams")
refine = _stage_flow("refine")
train = _stage_flow("train")
dynamic = _stage_flow("dynamic")
predict = _stage_flow("predict")
evaluate = _stage_flow("evaluate")
report = _stage_flow("report")
