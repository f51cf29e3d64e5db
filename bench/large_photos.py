"""docs/performance.md's table of large photos, as measured: python -m bench.large_photos docs/faults/large_photos.json"""

import json
import sys
from pathlib import Path
from typing import Any

STAGES = ("dataset", "cams", "refine")


def table(runs: list[dict[str, Any]]) -> list[str]:
    """Peak MiB of the process in each stage, and seconds of `refine`, by preset and size of the photo."""
    rows = []
    for run in runs:
        peaks = " | ".join(f"{run['stages'][stage]['peak'] / 2**20:,.0f}" for stage in STAGES)
        rows.append(f"| {run['preset']} | {run['megapixels']:g} | {peaks} | {run['stages']['refine']['seconds']:,.0f} |")
    head = ["| preset | million pixels | dataset | cams | refine | refine, s |", "|---|---|---|---|---|---|"]
    return head + rows


def main() -> None:
    """Print it."""
    print("\n".join(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["runs"])))


if __name__ == "__main__":
    main()
