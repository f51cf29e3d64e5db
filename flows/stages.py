"""Each stage as a flow of its own: it runs that stage and, where they are not complete yet, the ones it needs."""

from prefect import Flow

from excel_core.config import RunSpec
from flows.chain_run import run_until
from flows.parameters import chain_flow
from tasks.engine.stage import RunEnvironment

__all__ = ["cams", "dataset", "describe", "dynamic", "evaluate", "knowledge", "predict", "refine", "report", "train"]


def _stage_flow(stage: str) -> Flow[..., str]:
    @chain_flow(stage, description=f"Run stage {stage!r} and what it needs. Returns its output folder.")
    def run_stage(run: RunSpec, place: RunEnvironment, runner: str) -> str:
        return str(run_until(stage, run, place, runner).outputs[stage].folder)

    return run_stage


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
