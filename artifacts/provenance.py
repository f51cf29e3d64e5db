"""Where each stage's output comes from: what it was made of, by which code, in which run, and where it lies."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from artifacts.costs import COSTS_NOTE, cost_rows
from artifacts.rows import markdown_text, size
from artifacts.view import StageRow

__all__ = ["Fact", "facts", "stages_markdown", "summary_text"]

SUMMARY_PAIRS = 6
FLOW_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # anything else would make a link that leads nowhere


@dataclass(frozen=True)
class Fact:
    """A name and what it is; `code`: shown in a monospaced face."""

    name: str
    text: str
    code: bool = True


def facts(row: StageRow) -> list[Fact]:
    """Everything known about where the stage's output comes from; what is not known is left out."""
    inputs = [Fact(f"input: {stage}", identity) for stage, identity in row.inputs.items()]
    found = [
        Fact("identity", row.identity),
        Fact("code", row.code),
        *inputs,
        Fact("finished", _moment(row.finished), code=False),
        Fact("built by flow run", row.made_by, code=False),
        Fact("flow run id", row.made_by_id),
        Fact("parts", str(row.parts or ""), code=False),
        Fact("folder", row.folder),
    ]
    return [fact for fact in found if fact.text]


def stages_markdown(stages: Sequence[StageRow]) -> str:
    """A Markdown table for the Prefect UI: what this run built or found, with links to the runs that built it, and what
    building took; folders below it, where a long path cannot push the rest aside."""
    *costs, total = (" | ".join(list(row.values())[1:]) for row in cost_rows(stages))
    lines = ["| stage | this run | built by | seconds | host GiB | GPU GiB | size |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for row, cost in zip(stages, costs, strict=True):
        state = "cached" if row.cached else "ran"
        lines.append(f"| {markdown_text(row.stage)} | {state} | {_link(row)} | {cost} | {size(row.bytes)} |")
    built = sum(not row.cached for row in stages)
    everything = size(sum(row.bytes for row in stages))
    lines.append(f"| total | {built} ran, {len(stages) - built} cached | | {total} | {everything} |")
    lines += ["", COSTS_NOTE]
    width = max((len(row.stage) for row in stages), default=0)
    folders = [_code_line(f"{row.stage:{width}}  {row.folder}") for row in stages if row.folder]
    return "\n".join([*lines, *(["", "```text", *folders, "```"] if folders else [])]) + "\n"


def summary_text(row: StageRow) -> str:
    """A stage's own words, the first few pairs of them."""
    pairs = [f"{key} {_value(value)}" for key, value in row.summary.items() if value not in ({}, [], None)]
    more = [f"{len(pairs) - SUMMARY_PAIRS} more"] if len(pairs) > SUMMARY_PAIRS else []
    return " · ".join(pairs[:SUMMARY_PAIRS] + more)


def _link(row: StageRow) -> str:
    """The flow run that built it, as a link where its id is known. It is relative to the artifact's page, so it stays
    in the UI that shows it: there are two, at / and at /v2, and either may be served below another path."""
    name = markdown_text(row.made_by or row.made_by_id)
    return f"[{name}](../../runs/flow-run/{row.made_by_id})" if FLOW_RUN.fullmatch(row.made_by_id) else name


def _code_line(text: str) -> str:
    """`text` as a line that cannot end the block of code around it."""
    return " ".join(text.replace("`", "'").splitlines())


def _moment(text: str) -> str:
    """2026-11-24T01:43:06.1+00:00 → 2026-11-24 01:43:06 UTC; other text as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)[.\d]*(Z|\+00:00)", text)
    return f"{found[1]} {found[2]} UTC" if found else text


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
