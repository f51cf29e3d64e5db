"""A plan as a table for the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from artifacts.rows import ABSENT, Row, duration, print_rows, size

__all__ = ["plan_rows", "print_plan"]

NAMED = 3  # so many missing parts are named


def plan_rows(steps: Sequence[Any]) -> list[Row]:
    """Steps as of tasks/history/plan.py → one row a stage."""
    return [
        {
            "stage": step.name,
            "runs": "yes" if step.runs else "no",
            "parts": _parts(step),
            "expected": (ABSENT if step.seconds is None else duration(step.seconds)) if step.runs else "",
            "disk": (ABSENT if step.bytes is None else size(step.bytes)) if step.runs else "",
            "why": step.why,
        }
        for step in steps
    ]


def print_plan(steps: Sequence[Any], console: Console) -> None:
    """Print the plan and its total."""
    print_rows(console, "Plan", plan_rows(steps), [], ["stage", "runs", "why"])
    wanted = [step for step in steps if step.runs]
    if not wanted:
        console.print("nothing to run: every stage is complete")
        return
    known = [step for step in wanted if step.seconds is not None]
    text = f"{len(wanted)} of {len(steps)} stages run"
    if known:
        text += f"; at most about {duration(sum(step.seconds for step in known))} and {size(sum(s.bytes for s in known))}"
    if len(known) < len(wanted):
        text += f"; {len(wanted) - len(known)} of them were never run here, so that nothing is expected of them"
    console.print(text)


def _parts(step: Any) -> str:
    if step.parts is None:
        return "?"
    if not step.runs:
        return str(step.parts) if step.parts else ""
    if not step.parts:
        return ""
    named = f": {', '.join(step.missing_names)}" if 0 < step.missing <= NAMED and step.missing < step.parts else ""
    return f"{step.missing} of {step.parts}{named}"
