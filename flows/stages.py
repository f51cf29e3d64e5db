"""Each stage as a flow of its own: it runs that stage and, where they are not complete yet, the ones it needs."""

from prefect import Flow

from flows.chain_run import chain_run
from flows.parameters import chain_flow
from flows.request import RunRequest

__all__ = ["cams", "dataset", "describe", "dynamic", "evaluate", "knowledge", "predict", "refine", "report", "train"]


def _stage_flow(name: str) -> Flow[..., str]:
    @chain_flow(name, description=f"Run stage {name!r} and what it needs. Returns its output folder.")
    def run_stage(request: RunRequest) -> str:
        run, environment = request.resolve()
        with chain_run(run, environment, name, request.runner) as chain:
            return str(chain.until_last().folder)

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
