"""A store's runs as tables in the terminal: the plan of a run, the list of runs, two knowledge bases compared."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from artifacts.rows import ABSENT, Row, duration, number, print_rows, size
from artifacts.stages import gibibytes

if TYPE_CHECKING:  # at run time it would load torch, for which `excel runs` need not wait
    from excel_core.text.knowledge_diff import ClassChange, NamedAttribute

__all__ = ["PlanStep", "class_change_rows", "plan_rows", "print_plan", "print_prompts_diff", "run_rows"]

MAX_NAMED_PARTS = 3  # up to so many missing parts are named
MAX_CHANGED_SETTINGS = 4  # of a run in the list of runs

Records = Iterable[Mapping[str, Any]]


class PlanStep(Protocol):
    """One stage of a plan (tasks/history/plan.py). `parts` and `missing` are 0 for a stage in one piece, None where they
    depend on an input that is not built yet; `seconds` and `bytes` are expected, None where no earlier run tells."""

    @property
    def name(self) -> str: ...
    @property
    def runs(self) -> bool: ...
    @property
    def why(self) -> str: ...
    @property
    def parts(self) -> int | None: ...
    @property
    def missing(self) -> int | None: ...
    @property
    def missing_names(self) -> tuple[str, ...]: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def bytes(self) -> int | None: ...


def plan_rows(steps: Sequence[PlanStep]) -> list[Row]:
    """One row per stage: whether it runs, its missing parts, expected time and disk, and the reason."""
    return [
        {
            "stage": step.name,
            "runs": "yes" if step.runs else "no",
            "parts": _parts_text(step),
            "expected": (ABSENT if step.seconds is None else duration(step.seconds)) if step.runs else "",
            "disk": (ABSENT if step.bytes is None else size(step.bytes)) if step.runs else "",
            "why": step.why,
        }
        for step in steps
    ]


def print_plan(steps: Sequence[PlanStep], console: Console) -> None:
    """Print the plan and its total."""
    print_rows(console, "Plan", plan_rows(steps), [], ["stage", "runs", "why"])
    pending = [step for step in steps if step.runs]
    if not pending:
        console.print("nothing to run: every stage is complete")
        return
    # Without a time of an earlier run there is no size either.
    timed = [step for step in pending if step.seconds is not None]
    text = f"{len(pending)} of {len(steps)} stages run"
    if timed:
        text += f"; at most about {duration(sum(step.seconds or 0 for step in timed))} and "
        text += size(sum(step.bytes or 0 for step in timed))
    if len(timed) < len(pending):
        text += f"; {len(pending) - len(timed)} of them were never run here, so that nothing is expected of them"
    console.print(text)


def _parts_text(step: PlanStep) -> str:
    if step.parts is None or step.missing is None:
        return "?"
    if not step.runs:
        return str(step.parts) if step.parts else ""
    if not step.parts:
        return ""
    few = 0 < step.missing <= MAX_NAMED_PARTS and step.missing < step.parts
    return f"{step.missing} of {step.parts}" + (f": {', '.join(step.missing_names)}" if few else "")


def run_rows(runs: Records) -> list[Row]:
    """Summaries as tasks/history/run_summary.py makes them → one row per run, in the order given."""
    return [_run_row(run) for run in runs]


def _run_row(run: Mapping[str, Any]) -> Row:
    headline = run["headline"] or {"key": "", "miou": None}
    family, _, step = headline["key"].rpartition(".")
    return {
        "run": "\n".join(filter(None, [run["name"], run["id"], "pinned" if run["pinned"] else ""])),
        "flow": "\n".join([run["title"], *_changed_lines(run["changed"])]),
        "state": run["state"],
        "took": ABSENT if run["seconds"] is None else duration(run["seconds"]),
        "built": f"{run['built']} of {run['outputs']}",
        "to build": ABSENT if run["build_seconds"] is None else duration(run["build_seconds"]),
        "host GiB": gibibytes(run["peak_host_bytes"]),
        "GPU GiB": gibibytes(run["peak_gpu_bytes"]),
        "mIoU": number(headline["miou"]),
        "of": f"{family.replace('.', ' ')} {step.replace('_', ' ')}".strip(),
    }


def _changed_lines(settings: Mapping[str, Any]) -> list[str]:
    """The first settings that differ from the preset's, a line each, and how many more there are."""
    lines = [f"{field}={_setting_text(value)}" for field, value in list(settings.items())[:MAX_CHANGED_SETTINGS]]
    more = len(settings) - MAX_CHANGED_SETTINGS
    return [*lines, f"and {more} more (--json)"] if more > 0 else lines


def _setting_text(value: Any) -> str:
    """A value as `--set` takes it."""
    return f"[{', '.join(map(_setting_text, value))}]" if isinstance(value, list) else "null" if value is None else str(value)


def class_change_rows(changes: Sequence["ClassChange"]) -> list[Row]:
    """One row per class that changed: those with other texts first, then by how far T_c moved."""
    return [
        {
            "class": change.name,
            "texts": f"+{len(change.added)} −{len(change.removed)}",
            "cosine of T_c": ABSENT if change.cosine is None else number(change.cosine, 4),
            "attributes in": "\n".join(map(_attribute_text, change.moved_in)) or ABSENT,
            "attributes out": "\n".join(map(_attribute_text, change.moved_out)) or ABSENT,
        }
        for change in sorted((change for change in changes if change.changed), key=_change_order)
    ]


def print_prompts_diff(console: Console, a: str, b: str, clip: str, changes: Sequence["ClassChange"], texts: bool) -> None:
    """Print what an edit of descriptions moved; with `texts`, also the texts of each changed class."""
    rows = class_change_rows(changes)
    same = len(changes) - len(rows)
    heading = f"a: {a}, b: {b}, through {clip}; {same} of {len(changes)} classes are the same"
    if not rows:
        console.print(heading, markup=False, highlight=False, soft_wrap=True)
    note = "attributes: the heaviest of a class, named by their nearest description"
    print_rows(console, "What moved", rows, [heading, note], ["class", "attributes in", "attributes out"])
    for change in changes if texts else ():
        for mark, changed_texts in (("−", change.removed), ("+", change.added)):
            for text in changed_texts:
                console.print(f"{mark} {text}", markup=False, highlight=False, soft_wrap=True)


def _change_order(change: "ClassChange") -> tuple[bool, float]:
    # False sorts before True; a class in one base alone comes before every cosine, which is -1 at least.
    return not (change.added or change.removed), -2.0 if change.cosine is None else change.cosine


def _attribute_text(attribute: "NamedAttribute") -> str:
    """("cat", "a clean origami cat. it has whiskers.") → "cat: has whiskers"."""
    class_name, description = attribute
    return f"{class_name}: {description.partition('. it ')[2].rstrip('.') or description}"
