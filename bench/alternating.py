"""Time ways of computing the same beside each other: rounds alternate between them, so that a machine that slows down
meanwhile slows all of them, and what is compared are ratios within a round."""

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Case", "measure"]


@dataclass(frozen=True)
class Case:
    """One thing computed by `ours` and by `published`, each a function of the round. `items`: images (or steps) per call.
    `agree(ours, published)` → what to report of the two results, by name."""

    name: str
    ours: Callable[[int], Any]
    published: Callable[[int], Any]
    agree: Callable[[Any, Any], dict[str, float]]
    items: int = 1
    rounds: int = 5


def measure(case: Case) -> dict[str, Any]:
    """Seconds per item of both sides, the ratio with its least and greatest over the rounds, memory, and how far they agree."""
    case.ours(0), case.published(0)  # what is compiled, cached or paged in the first time
    seconds: dict[str, list[float]] = {"ours": [], "published": []}
    agreements: list[dict[str, float]] = []
    for number in range(case.rounds):
        results = {}
        for side in seconds:
            gc.collect()
            started = time.perf_counter()
            results[side] = getattr(case, side)(number)
            seconds[side].append((time.perf_counter() - started) / case.items)
        agreements.append(case.agree(results["ours"], results["published"]))
    ratios = [theirs / ours for ours, theirs in zip(seconds["ours"], seconds["published"], strict=True)]
    return {
        "name": case.name,
        "seconds": {side: statistics.median(rounds) for side, rounds in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "rounds": case.rounds,
        "peak_bytes": {side: grown_by(getattr(case, side)) for side in seconds},
        "agreement": {name: [agreement[name] for agreement in agreements] for name in agreements[0]},
    }


def grown_by(call: Callable[[int], Any]) -> int:
    """Bytes by which one call raises what this process holds in memory, at its peak (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed goes back, so that this one has to ask for it again
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
    before = _status("VmRSS")
    call(0)
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert match is not None
    return 1024 * int(match[1])
