"""The flow `compare`: two finished runs side by side, as a page and in the Prefect UI. It runs no stage of theirs."""

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from artifacts.prefect_artifacts.publish import publish_comparison
from flows.local.reports import report_link
from flows.local.state import store_folder
from flows.request_fields import Text
from flows.retention import kept_pictures
from tasks.engine.executor import build_stage
from tasks.engine.failures import plain_failures
from tasks.engine.lock import store_in_use
from tasks.engine.prefect_task import run_step
from tasks.history.compare import NEEDED, compare_runs, comparison_job
from tasks.history.find_run import find_record

__all__ = ["compare"]


@flow(name="compare", persist_result=False)
def compare(a: Text, b: Text = "latest", result: Text | None = None, store: Text | None = None) -> str:
    """Compare two finished runs: settings, classes with 95 % intervals, images that changed most. Returns the page's path.

    Args:
        a: Run A: its name, its id or the beginning of it, or `latest`.
        b: Run B, which is compared with A; `latest` is the newest complete run that was evaluated.
        result: Result to compare, such as seeds.lvc.train.crf; empty: the headline of what both runs have.
        store: Folder of both runs, or s3://BUCKET/PREFIX; empty: the worker's $EXCEL_STORE, else runs/.
    """
    folder, pictures = store_folder(store), kept_pictures()
    with plain_failures("compare", folder), store_in_use(folder):
        run_a, run_b = (find_record(folder, name, NEEDED) for name in (a, b))
        job = comparison_job(run_a, run_b, compare_runs(run_a, run_b, result))
        output = build_stage(job, run_step)
        _publish(str(output.folder), report_link(folder, output.folder), pictures)
    return str(output.folder / "index.html")


# Never cached, so that every run shows its tables and pictures, or where the same ones are.
@task(name="artifacts", cache_policy=NO_CACHE, persist_result=False)
def _publish(folder: str, link: str, keep_pictures: int) -> list[str]:
    return publish_comparison(Path(folder), link, keep_pictures)
