"""Each stage as a flow of its own: it runs that stage and, where they are not complete yet, the ones it needs."""

from typing import Literal

from prefect import Flow, flow

from flows.excel import Folder, Method, Preset, Settings, run_until
from flows.settings import make_place, make_run

__all__ = ["cams", "dataset", "describe", "dynamic", "evaluate", "knowledge", "refine", "report", "train"]


def _stage_flow(stage: str) -> Flow:  # type: ignore[type-arg]
    @flow(name=stage, persist_result=False, description=f"Run stage {stage!r} and what it needs.")
    def run_stage_flow(
        preset: Preset = "voc",
        method: Method = "reference",
        settings: Settings = [],  # noqa: B006
        data: Folder = None,
        store: Folder = None,
        clip: str | None = None,
        device: Literal["cpu", "cuda", "mps"] = "cpu",
    ) -> str:
        run = make_run(preset, method, settings, clip)
        outputs, _ = run_until(stage, run, make_place(run, data, store, device))
        return str(outputs[stage].folder)

    return run_stage_flow


dataset = _stage_flow("dataset")
describe = _stage_flow("describe")
knowledge = _stage_flow("knowledge")
cams = _stage_flow("cams")
refine = _stage_flow("refine")
train = _stage_flow("train")
dynamic = _stage_flow("dynamic")
evaluate = _stage_flow("evaluate")
report = _stage_flow("report")
