"""The benchmark (benchmark.json, excel-benchmark/1) as tables: one row a method, then every number with its protocol, then
costs; as Markdown, as CSV, and in the terminal."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from artifacts.drawing import STEP_NAMES
from artifacts.rows import Row, defined, duration, markdown_table, markdown_text, per_cent_interval, print_rows
from artifacts.stages import COSTS_NOTE, gibibytes
from artifacts.tables import protocol_text, shared_protocol
from artifacts.view import Benchmark
from excel_core.safe_csv import text_cell

__all__ = [
    "KINDS", "Section", "benchmark_csv", "benchmark_markdown", "differs", "first_method", "last_numbers", "notes",
    "print_benchmark", "sections", "step_words",
]  # fmt: skip

KINDS = {"static": "CAM seeds, training-free", "lvc": "CAM seeds after training", "segmentation": "Segmentation"}
NOT_TRAINED, NO_STEP, NOT_SCORED = "not trained", "no such step", "not scored"
MARK = "*"  # of a number that differs from the first method's
TEXT_COLUMNS = ("method", "step", "protocol", "raw", "+ affinity", "+ PAR", "+ CRF")
SHARED_COSTS = (
    "Methods that share a stage build it once; its cost counts for each of them. Of several seeds, a stage's least time: the "
    "first to compute in a process also loads models and, on a GPU, compiles."
)
# Columns of the CSV beside the protocol's, in order.
NUMBER_FIELDS = ("method", "kind", "step", "last", "miou", "std", "low", "high", "seeds")
DIFFERENCE_FIELDS = ("difference", "std", "low", "high")
COST_FIELDS = ("seconds", "peak_host_bytes", "peak_gpu_bytes", "trained_parameters")


@dataclass(frozen=True)
class Section:
    """A table with its title and the notes below it."""

    title: str
    rows: list[Row]
    notes: tuple[str, ...] = ()


def sections(document: Benchmark) -> list[Section]:
    """The summary, every kind's numbers, and the costs; what is empty is left out."""
    tables = [Section(f"Benchmark of {document['preset']}", _summary_rows(document), tuple(notes(document)))]
    for kind, title in KINDS.items():
        numbers = [number for number in document["numbers"] if number["kind"] == kind]
        shared = shared_protocol([number["protocol"] for number in numbers])
        tables.append(Section(title, _number_rows(document, numbers, shared), (protocol_text(shared),)))
    return [table for table in (*tables, Section("Cost", _cost_rows(document), (COSTS_NOTE, SHARED_COSTS))) if table.rows]


def notes(document: Benchmark) -> list[str]:
    """How to read the numbers, and what was not scored."""
    first = first_method(document)
    trainings = [(method["name"], method["iterations"]) for method in document["methods"] if method["iterations"] is not None]
    lines = [
        f"preset {document['preset']}, CLIP {document['clip']}; mIoU in per cent over the classes in the truth, the mean over "
        "splits and seeds"
    ]
    if document["seeds"] > 1:
        lines.append(
            f"± standard deviation over {document['seeds']} seeds of k-means and training; without it the seeds change nothing"
        )
    lines.append(f"[ ] 95 % interval over {document['resamples']} resamples of the images, the same for all methods")
    if len(document["methods"]) > 1:
        lines.append(f"{MARK} differs from {first}: the 95 % interval of the paired difference leaves out 0")
    if trainings:
        lines.append(f"iterations of training: {', '.join(f'{name} {iterations:,}' for name, iterations in trainings)}")
    if document["limit"] is not None:
        lines.append(f"to try it out: {document['limit']} images a split")
    return lines + [f"not scored: {what}: {reason}" for what, reason in document["skipped"].items()]


def first_method(document: Benchmark) -> str:
    """The method that the others are compared with."""
    return str(document["methods"][0]["name"])


def differs(number: Mapping[str, Any]) -> bool:
    """Whether the interval of the difference to the first method leaves out 0."""
    difference = number["difference"] or {}
    low, high = difference.get("low"), difference.get("high")
    return defined(low) and defined(high) and (low > 0 or high < 0)


def last_numbers(document: Benchmark, kind: str) -> dict[str, Mapping[str, Any]]:
    """A kind's last step by method."""
    return {number["method"]: number for number in document["numbers"] if number["kind"] == kind and number["last"]}


def step_words(step: str) -> str:
    """`par` → `+ PAR`; `multi_scale_crf` → `multi scale crf`."""
    return STEP_NAMES.get(step, step.replace("_", " "))


def _summary_rows(document: Benchmark) -> list[Row]:
    """A row a method: seeds step by step, seeds after training, segmentation, costs. No cell is empty."""
    static = {(number["method"], number["step"]): number for number in document["numbers"] if number["kind"] == "static"}
    steps = [step for step in STEP_NAMES if any(step == made for _, made in static)]
    after, segmented = (last_numbers(document, kind) for kind in ("lvc", "segmentation"))
    costs = {cost["method"]: cost for cost in document["costs"]}
    rows = []
    for method in document["methods"]:
        name, kinds = method["name"], method["kinds"]
        row = {"method": name}
        for step in steps:
            has_seeds = any(made == name for made, _ in static)
            row[step_words(step)] = _short(static.get((name, step)), NO_STEP if has_seeds else NOT_SCORED)
        row["after training"] = _short(after.get(name), NOT_SCORED if "lvc" in kinds else NOT_TRAINED)
        row["segmentation"] = _short(segmented.get(name), NOT_SCORED if "segmentation" in kinds else NOT_TRAINED)
        rows.append(row | _cost_cells(costs[name]))
    return rows


def _short(number: Mapping[str, Any] | None, absent: str) -> str:
    """mIoU ± deviation, marked where it differs from the first method's."""
    if number is None:
        return absent
    text = per_cent_interval({"miou": number["miou"], "std": number["std"]}, "miou")
    return f"{text} {MARK}" if differs(number) else text


def _number_rows(document: Benchmark, numbers: Iterable[Mapping[str, Any]], shared: Mapping[str, Any]) -> list[Row]:
    """A row a number: its interval, its difference to the first method, and the fields of its protocol that are not shared."""
    first, rows = first_method(document), []
    for number in numbers:
        row = {"method": number["method"], "step": step_words(number["step"]), "mIoU": per_cent_interval(number, "miou")}
        row["seeds"] = str(number["seeds"])
        if len(document["methods"]) > 1:
            row[f"− {first}"] = _difference(number, first)
        protocol = {field: value for field, value in number["protocol"].items() if field not in shared}
        rows.append(row | {"protocol": protocol_text(protocol)})
    return rows


def _difference(number: Mapping[str, Any], first: str) -> str:
    difference = number["difference"]
    if difference is None:
        return "the same" if number["method"] == first else NO_STEP
    _, step = difference["against"]
    text = per_cent_interval(difference, "difference", sign="+") + (f" {MARK}" if differs(number) else "")
    return text if step == number["step"] else f"{text} ({step_words(step)})"


def _cost_rows(document: Benchmark) -> list[Row]:
    """A row a method: the time of each stage, then the sum and the largest peaks."""
    stages = dict.fromkeys(stage["stage"] for cost in document["costs"] for stage in cost["stages"])
    rows = []
    for cost in document["costs"]:
        seconds = {stage["stage"]: duration(stage["seconds"]) for stage in cost["stages"]}
        rows.append({"method": cost["method"]} | {stage: seconds.get(stage, "none") for stage in stages} | _cost_cells(cost))
    return rows


def _cost_cells(cost: Mapping[str, Any]) -> Row:
    trained = cost["trained_parameters"]
    return {
        "time": duration(cost["seconds"]),
        "host GiB": gibibytes(cost["peak_host_bytes"]),
        "GPU GiB": "none" if cost["peak_gpu_bytes"] is None else gibibytes(cost["peak_gpu_bytes"]),
        "trained": "none" if trained is None else f"{trained:,}",
    }


def benchmark_markdown(document: Benchmark) -> str:
    """All tables with their notes, for the Prefect UI and as a file."""
    blocks = []
    for section in sections(document):
        lines = "\n".join(f"- {markdown_text(note)}" for note in section.notes)
        blocks.append(f"## {markdown_text(section.title)}\n\n{markdown_table(section.rows)}\n{lines}\n")
    return "\n".join(blocks)


def print_benchmark(document: Benchmark, console: Console) -> None:
    """Print the summary, the numbers of each kind, and the costs."""
    for section in sections(document):
        print_rows(console, section.title, section.rows, section.notes, TEXT_COLUMNS)
    if not document["numbers"]:
        console.print(Text("nothing was scored", style="dim"))


def benchmark_csv(document: Benchmark) -> str:
    """A line a number, in shares and bytes: its score, its difference to the first method, its protocol, its method's cost. A
    text that a spreadsheet would take for a formula begins with an apostrophe."""
    protocol_fields = list(dict.fromkeys(field for number in document["numbers"] for field in number["protocol"]))
    costs = {cost["method"]: cost for cost in document["costs"]}
    names = [f if f == "difference" else f"difference_{f}" for f in DIFFERENCE_FIELDS]
    head = [*NUMBER_FIELDS, "against", *names, *COST_FIELDS, *(f"protocol: {field}" for field in protocol_fields)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for number in document["numbers"]:
        difference, cost = number["difference"] or {}, costs[number["method"]]
        cells: list[Any] = [number[field] for field in NUMBER_FIELDS]
        cells += [" ".join(difference.get("against", ())), *(difference.get(field) for field in DIFFERENCE_FIELDS)]
        cells += [cost[field] for field in COST_FIELDS]
        cells += [number["protocol"].get(field, "") for field in protocol_fields]
        writer.writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def _cell(value: Any) -> Any:
    return text_cell(value) if isinstance(value, str) else value
