"""What a run's descriptions cost it: the classes that a language model was asked for in this run, and the others."""

from tasks.engine.outputs import StageOutput, read_marker
from tasks.history.run_record import read_records

__all__ = ["spent_line"]


def spent_line(described: StageOutput) -> str:
    """One line on the `describe` stage's output of a run of this process, such as "describe: 2 classes asked, 1,234 + 567
    tokens, 0.01 USD"; empty where no language model wrote it."""
    if "requests" not in described.summary:
        return ""
    store = described.folder.parent.parent
    ours = {record.flow_run_id for record in read_records(store) if record.process == record.process.current()} - {""}
    parts = read_marker(described.folder)["origin"]["parts"]
    markers = [read_marker(store / "describe-parts" / identity) for identity in parts.values()]
    asked = [marker["output"]["summary"] for marker in markers if marker["origin"].get("flow_run_id") in ours]
    found = [marker["output"]["summary"] for marker in markers if marker["origin"].get("flow_run_id") not in ours]
    line = f"describe: {_classes(asked)} asked" + (f", {_tokens(asked)}" if asked else "")
    return line + (f"; {_classes(found)} found, which took {_tokens(found)} when they were asked" if found else "")


def _classes(costs: list[dict[str, float]]) -> str:
    return "1 class" if len(costs) == 1 else f"{len(costs)} classes"


def _tokens(costs: list[dict[str, float]]) -> str:
    """Tokens read + written, and USD where the prices were told for all of them."""
    read, written = (sum(cost[kind] for cost in costs) for kind in ("prompt_tokens", "completion_tokens"))
    text = f"{read:,} + {written:,} tokens"
    if not all("usd" in cost for cost in costs):
        return text
    usd = sum(cost["usd"] for cost in costs)
    return f"{text}, {usd:.{2 if usd >= 1 else 4}f} USD"
