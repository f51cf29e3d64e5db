"""What bringing files onto the disk costs: the demo's stages, with every wait for the disk measured.

    OMP_NUM_THREADS=1 python -m bench.durability [--scenes 300] [--iterations 100] [--store DIR] [--json FILE]

Of each stage and its parts: seconds of building, seconds within them of waiting for the disk (EXCEL_FSYNC=1), and the share. A
small world is the hard case: an image takes hundredths of a second here, seconds of a real data set's. DIR must not exist; it
decides which disk is measured.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

import excel_core.checked_files  # isort: skip
import excel_core.files
import tasks.engine.executor
import tasks.engine.output
from excel_core.config.presets import preset, with_settings
from tasks.engine.executor import Step, build_stage, find_or_build
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment
from tasks.pipeline import pipeline

# Where the functions of excel_core/sync.py are called from.
CALLERS = {
    excel_core.files: ("sync_file", "sync_folder", "make_folder"),
    tasks.engine.output: ("sync_tree", "sync_folder", "make_folder"),
    tasks.engine.executor: ("make_folder",),
}


class Waits:
    """Seconds that the main thread waits for the disk."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for module, names in CALLERS.items():
            for name in names:
                setattr(module, name, self._timed(getattr(module, name)))

    def _timed(self, function: Callable[..., None]) -> Callable[..., None]:
        def timed(*arguments: Any) -> None:
            started = time.perf_counter()
            function(*arguments)
            self.seconds += time.perf_counter() - started

        return timed


def measure(scenes: int, iterations: int, store: Path) -> list[dict[str, Any]]:
    """Build the chain up to `predict` → a row a stage: files, bytes, seconds, seconds of waiting."""
    settings = [f"dataset.train_scenes={scenes}", f"train.iterations={iterations}", "evaluate.ablation=false"]
    run = with_settings(preset("demo"), settings)
    waits, rows = Waits(), defaultdict(lambda: {"files": 0, "bytes": 0, "seconds": 0.0, "waiting": 0.0})

    def build_step(step: Step) -> StageOutput:
        before, started = waits.seconds, time.perf_counter()
        output = find_or_build(step)
        row = rows[step.job.stage.name]
        row["files"] += sum(1 for path in output.folder.rglob("*") if path.is_file())
        row["bytes"] += output.bytes
        row["seconds"] += time.perf_counter() - started
        row["waiting"] += waits.seconds - before
        return output

    def build(job: Job) -> StageOutput:
        return build_stage(job, build_step)

    pipeline(run, RunEnvironment(store=store), "predict").follow(build)
    return [{"stage": name, **row, "share": row["waiting"] / row["seconds"]} for name, row in rows.items()]


def main() -> None:
    """Print the rows, and write them to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.scenes, arguments.iterations, arguments.store or Path(folder) / "store")
    for row in rows:
        print(
            f"{row['stage']:10} {row['files']:6} files {row['bytes'] / 2**20:8.1f} MiB {row['seconds']:8.1f} s, "
            f"waiting {row['waiting']:6.2f} s, {row['share']:.1%}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
