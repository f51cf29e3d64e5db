"""What stages cost when they were built: seconds and peak memory, a row each and their total, as the paper's Table 7 has it."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from artifacts.rows import ABSENT, Row

__all__ = ["COSTS_NOTE", "Cost", "cost_rows", "gib", "most"]

COSTS_NOTE = (
    "Time and peak memory are what building took, whenever that was, parts included. Host: all resident memory of the largest "
    "process, summed over processes that train together. GPU: tensors on one GPU. In the total, time is a sum and memory the "
    "largest of the stages."
)


class Cost(Protocol):
    """A stage's name, the seconds that building it took, and bytes of peak memory; None: not measured, or no GPU used."""

    @property
    def stage(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def peak_host_bytes(self) -> int | None: ...
    @property
    def peak_gpu_bytes(self) -> int | None: ...


def cost_rows(stages: Iterable[Cost]) -> list[Row]:
    """A row a stage in the order given, then the total: the sum of seconds, the largest peaks. Where the host memory of a stage
    was not measured, that of the total is a lower bound, marked by ≥."""
    costs = list(stages)
    rows = [_row(cost.stage, cost.seconds, gib(cost.peak_host_bytes), gib(cost.peak_gpu_bytes)) for cost in costs]
    seconds = sum(cost.seconds for cost in costs)
    host, gpu = most([cost.peak_host_bytes for cost in costs]), most([cost.peak_gpu_bytes for cost in costs])
    bound = "≥ " if host is not None and any(cost.peak_host_bytes is None for cost in costs) else ""
    return [*rows, _row("total", seconds, bound + gib(host), gib(gpu))]


def most(values: Sequence[int | None]) -> int | None:
    """The largest that is known, None where nothing is."""
    return max((value for value in values if value is not None), default=None)


def gib(count: int | None) -> str:
    """Bytes in GiB (2^30), two digits; – for None."""
    return ABSENT if count is None else f"{count / 2**30:.2f}"


def _row(stage: str, seconds: float, host: str, gpu: str) -> Row:
    return {"stage": stage, "seconds": f"{seconds:.1f}", "host GiB": host, "GPU GiB": gpu}
