"""Stages as tables: what building each took (the paper's Table 7), and where its output comes from."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from artifacts.rows import ABSENT, Row, duration, markdown_text, number, size

if TYPE_CHECKING:  # at run time it would load pandas, for which `excel runs` need not wait
    from artifacts.view import StageRow

__all__ = [
    "COSTS_NOTE", "Cost", "OriginFact", "cost_rows", "gibibytes", "largest_known", "origin_facts", "result_line",
    "stages_markdown", "summary_text",
]  # fmt: skip

COSTS_NOTE = (
    "Time and peak memory are what building took, whenever that was, parts included. Host: all resident memory of the largest "
    "process, summed over processes that train together. GPU: tensors on one GPU. In the total, time is a sum and memory the "
    "largest of the stages."
)
MAX_SUMMARY_PAIRS = 6
# Fields of stages' results that are counts, in words; those of several splits are added up.
COUNTS = {
    "scenes": "scenes", "images": "images", "bad": "skipped", "left_out": "without an object",
    "absent": "not in the data folder", "classes": "classes", "descriptions": "descriptions", "texts": "texts",
    "attributes": "attributes", "masks": "masks", "iterations": "iterations", "doubtful_given": "doubtful labels",
    "doubtful_missing": "labels that seem to be missing", "figures": "figures", "rows": "rows",
}  # fmt: skip
FLOW_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # anything else would make a link that leads nowhere


class Cost(Protocol):
    """A stage's name, the seconds that building it took, and its peak memory in bytes; None: not measured, or no GPU used."""

    @property
    def stage(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def peak_host_bytes(self) -> int | None: ...
    @property
    def peak_gpu_bytes(self) -> int | None: ...


@dataclass(frozen=True)
class OriginFact:
    """A fact about where an output comes from, with its name; `code`: shown in a monospaced face."""

    name: str
    text: str
    code: bool = True


def cost_rows(stages: Iterable[Cost]) -> list[Row]:
    """One row per stage in the order given, then the total: the sum of seconds, the largest peaks. Where the host memory of
    a stage was not measured, the total is a lower bound and is marked by ≥."""
    costs = list(stages)
    rows = [_cost_row(cost.stage, cost.seconds, cost.peak_host_bytes, cost.peak_gpu_bytes) for cost in costs]
    host, gpu = largest_known(cost.peak_host_bytes for cost in costs), largest_known(cost.peak_gpu_bytes for cost in costs)
    total = _cost_row("total", sum(cost.seconds for cost in costs), host, gpu)
    if host is not None and any(cost.peak_host_bytes is None for cost in costs):
        total["host GiB"] = f"≥ {total['host GiB']}"
    return [*rows, total]


def largest_known(values: Iterable[int | None]) -> int | None:
    """The largest of the values that are known; None where none is."""
    return max((value for value in values if value is not None), default=None)


def gibibytes(count: int | None) -> str:
    """Bytes in GiB (2^30), two digits; – for None."""
    return ABSENT if count is None else f"{count / 2**30:.2f}"


def _cost_row(stage: str, seconds: float, host: int | None, gpu: int | None) -> Row:
    return {"stage": stage, "seconds": f"{seconds:.1f}", "host GiB": gibibytes(host), "GPU GiB": gibibytes(gpu)}


def origin_facts(row: "StageRow") -> list[OriginFact]:
    """Everything known about where the stage's output comes from; unknown facts are left out."""
    inputs = [OriginFact(f"input: {stage}", identity) for stage, identity in row.inputs.items()]
    facts = [
        OriginFact("identity", row.identity),
        OriginFact("code", row.code),
        *inputs,
        OriginFact("finished", _moment(row.finished), code=False),
        OriginFact("built by flow run", row.made_by, code=False),
        OriginFact("flow run id", row.made_by_id),
        OriginFact("parts", str(row.parts or ""), code=False),
        OriginFact("folder", row.folder),
    ]
    return [fact for fact in facts if fact.text]


def stages_markdown(stages: "Sequence[StageRow]") -> str:
    """A Markdown table for the Prefect UI: which stages this run built or had cached, with links to the runs that built them,
    and what building took. Folders are listed below the table: in it, long paths would push the other columns aside."""
    *costs, total = (" | ".join(list(row.values())[1:]) for row in cost_rows(stages))
    lines = ["| stage | this run | built by | seconds | host GiB | GPU GiB | size |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for row, cost in zip(stages, costs, strict=True):
        state = "cached" if row.cached else "ran"
        lines.append(f"| {markdown_text(row.stage)} | {state} | {_flow_run_link(row)} | {cost} | {size(row.bytes)} |")
    built = sum(not row.cached for row in stages)
    total_size = size(sum(row.bytes for row in stages))
    lines.append(f"| total | {built} ran, {len(stages) - built} cached | | {total} | {total_size} |")
    lines += ["", COSTS_NOTE]
    width = max((len(row.stage) for row in stages), default=0)
    folders = [_code_line(f"{row.stage:{width}}  {row.folder}") for row in stages if row.folder]
    return "\n".join([*lines, *(["", "```text", *folders, "```"] if folders else [])]) + "\n"


def result_line(name: str, result: Mapping[str, Any], seconds: float, cached: bool) -> str:
    """What a stage came to, in one line: `refine: 1,464 images, 3 min 12 s`. `result` is its summary, as its marker has it."""
    words = [f"{count:,} {COUNTS[field]}" for field in COUNTS if (count := _count(result.get(field)))]
    if (loss := result.get("final_loss")) is not None:
        words.append(f"loss {number(loss)}")
    if (checkpoint := result.get("checkpoint")) is not None:
        words.append(f"taken from {checkpoint}")
    if "miou" in result:
        words.append(f"mIoU {_scores_text(result['miou'])}")
    words.append(f"complete before (took {duration(seconds)})" if cached else duration(seconds))
    return f"{name}: {', '.join(words)}"


def _count(value: Any) -> int:
    """A number; the sum of those of several splits; how many entries there are."""
    if isinstance(value, Mapping):
        return sum(part if isinstance(part, int) else 1 for part in value.values())
    return value if isinstance(value, int) else 0


def _scores_text(miou: Mapping[str, Any]) -> str:
    """The last score of each family of results (`seeds.lvc.train` has its `.raw` … `.crf`); of rows without families, and of
    methods with several scores each, the best."""
    scores = {key: value for key, value in miou.items() if isinstance(value, int | float)}
    scores |= {f"{key} {inner}": v for key, value in miou.items() if isinstance(value, Mapping) for inner, v in value.items()}
    if not scores:
        return f"{ABSENT} (no masks)"
    has_families = all(key.startswith(("seeds.", "segmentation.")) for key in scores)
    last_of_family = {key.rpartition(".")[0]: key for key in scores}  # of each family
    keys = list(last_of_family.values()) if has_families else [max(scores, key=lambda key: scores[key])]
    return ", ".join(f"{number(scores[key])} {key}" for key in keys)


def summary_text(row: "StageRow") -> str:
    """The first MAX_SUMMARY_PAIRS entries of a stage's summary, and how many more there are."""
    pairs = [f"{key} {_value_text(value)}" for key, value in row.summary.items() if value not in ({}, [], None)]
    more = [f"{len(pairs) - MAX_SUMMARY_PAIRS} more"] if len(pairs) > MAX_SUMMARY_PAIRS else []
    return " · ".join(pairs[:MAX_SUMMARY_PAIRS] + more)


def _flow_run_link(row: "StageRow") -> str:
    """The flow run that built the output, as a link where its id is known."""
    name = markdown_text(row.made_by or row.made_by_id)
    # Relative to the artifact's page, so that it stays in the UI that shows it: there are two, at / and at /v2, and either
    # may be served below another path.
    return f"[{name}](../../runs/flow-run/{row.made_by_id})" if FLOW_RUN.fullmatch(row.made_by_id) else name


def _code_line(text: str) -> str:
    """`text` as a line that cannot end the block of code around it."""
    return " ".join(text.replace("`", "'").splitlines())


def _moment(text: str) -> str:
    """2026-11-24T01:43:06.1+00:00 → 2026-11-24 01:43:06 UTC; other text as it is."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)[.\d]*(Z|\+00:00)", text)
    return f"{match[1]} {match[2]} UTC" if match else text


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value_text(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
