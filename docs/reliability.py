"""docs/reliability.md: each promise of a store that is killed, damaged or attacked, the test that holds it, and its figure.

python docs/reliability.py writes the page beside this file. The figures are those of docs/faults/, which `make soak` writes.
tests/core/test_docs.py fails where the page is not what they say, and where a test that is named is not there.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PROMISES", "reliability_page"]

FOLDER = Path(__file__).parent
HEAD = """# Reliability

What excel promises of a store whose runs are killed, whose disk fails or whose files are damaged, and of a machine with others
on it. Each promise has a test that fails without it. The figures are those of `make soak` on two cores; `make test` runs a
sample. Written by `python docs/reliability.py`.
"""


@dataclass(frozen=True)
class Promise:
    """A row of the page. `figure` is a format string over the values of docs/faults/`measured`.json; without one, the test
    alone speaks."""

    subject: str
    text: str
    test: str  # file::function
    measured: str = ""
    figure: str = ""


PROMISES: tuple[Promise, ...] = ()
WINDOWS: tuple[str, ...] = ()


def reliability_page() -> str:
    """The whole page as Markdown."""
    lines = [HEAD]
    for subject in dict.fromkeys(promise.subject for promise in PROMISES):
        lines += [f"## {subject}", "", "| promise | test | figure |", "|---|---|---|"]
        lines += [_row(promise) for promise in PROMISES if promise.subject == subject] + [""]
    lines += ["## What remains", "", *(f"- {window}" for window in WINDOWS), ""]
    return "\n".join(lines)


def _row(promise: Promise) -> str:
    figure = promise.figure.format(**_measured(promise.measured)) if promise.measured else promise.figure
    file, _, function = promise.test.partition("::")
    return f"| {promise.text} | `{file}` {function} | {figure} |"


def _measured(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((FOLDER / "faults" / f"{name}.json").read_text(encoding="utf-8"))
    return values


if __name__ == "__main__":
    (FOLDER / "reliability.md").write_text(reliability_page(), encoding="utf-8")
