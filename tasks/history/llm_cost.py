"""What a run's descriptions cost: the classes that a language model was asked for in this run, and the others."""

from collections.abc import Sequence

from excel_core.text.ask_class import LlmCost
from tasks.engine.output import StageOutput
from tasks.engine.shared_outputs import known_marker
from tasks.history.run_record import Process, read_records
from tasks.stages.describe import ClassResult, DescribeResult

__all__ = ["llm_cost_line"]


def llm_cost_line(described: StageOutput) -> str:
    """One line on the `describe` stage's output of a run of this process, such as "describe: 2 classes asked, 1,234 + 567
    tokens, 0.01 USD"; empty where no language model wrote it."""
    if described.result_as(DescribeResult).cost is None:
        return ""
    store = described.place.parents[1]
    own_flow_runs = {record.flow_run_id for record in read_records(store) if record.process == Process.current()} - {""}
    asked_costs: list[LlmCost] = []
    complete: list[LlmCost] = []
    for key in known_marker(described.place).origin.parts.values():
        marker = known_marker(store / "describe-parts" / key)
        cost = ClassResult.model_validate(marker.output["result"]).cost
        if cost is not None:
            (asked_costs if marker.origin.flow_run_id in own_flow_runs else complete).append(cost)
    line = f"describe: {_classes(asked_costs)} asked" + (f", {_tokens(asked_costs)}" if asked_costs else "")
    if not complete:
        return line
    return line + f"; {_classes(complete)} found, which took {_tokens(complete)} when they were asked"


def _classes(costs: Sequence[LlmCost]) -> str:
    return "1 class" if len(costs) == 1 else f"{len(costs)} classes"


def _tokens(costs: Sequence[LlmCost]) -> str:
    """Tokens read + written, and USD where the prices were told for all of them."""
    total = LlmCost.sum(costs)
    assert total is not None
    text = f"{total.prompt_tokens:,} + {total.completion_tokens:,} tokens"
    return text if total.usd is None else f"{text}, {total.usd:.{2 if total.usd >= 1 else 4}f} USD"
