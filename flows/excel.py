"""The flow `excel`: the whole chain, every stage cached, then what a person looks at in the Prefect UI."""

from typing import Annotated, Literal

from prefect import flow, task
from pydantic import Field

from artifacts.prefect_artifacts import publish
from excel_core.config import RunSpec
from flows.settings import make_place, make_run
from tasks.chain import follow, report_work
from tasks.prefect_task import run_as_task
from tasks.report import build_view
from tasks.stage import Place, StageOutput, Work

__all__ = ["excel", "run_until"]

Preset = Annotated[Literal["voc", "coco", "demo"], Field(description="what data set and which hyper-parameters")]
Method = Annotated[Literal["reference", "paper", "clean"], Field(description="published code, printed equations, or cleaned")]
Settings = Annotated[list[str], Field(description="edits, each stage.field=value")]
Folder = Annotated[str | None, Field(description="folder, absolute or relative to the worker's")]


def run_until(last: str, run: RunSpec, place: Place) -> tuple[dict[str, StageOutput], Place]:
    """Run the chain up to `last` as Prefect tasks, inside a flow."""
    place.store.mkdir(parents=True, exist_ok=True)
    return follow(run, place, last, run_as_task)


@flow(name="excel", persist_result=False)
def excel(
    preset: Preset = "voc",
    method: Method = "reference",
    settings: Settings = [],  # noqa: B006  Prefect shows it as the form's default; it is never changed
    data: Folder = None,
    store: Folder = None,
    clip: str | None = None,
    device: Literal["cpu", "cuda", "mps"] = "cpu",
) -> str:
    """Image-level labels → pseudo masks → trained segmenter → report. Returns the report's path."""
    run = make_run(preset, method, settings, clip)
    outputs, place = run_until("report", run, make_place(run, data, store, device))
    _publish(report_work(run, place, outputs))  # never cached, so that every run shows its tables and pictures
    return str(outputs["report"].folder / "index.html")


@task(name="artifacts", cache_policy=None, persist_result=False)
def _publish(work: Work) -> list[str]:
    return publish(build_view(work), work.folder / "index.html")
