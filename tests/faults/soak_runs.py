"""Many small runs of the whole chain in one process, as a long-lived worker or notebook makes them; run as
`python -m tests.faults.soak_runs STORE RUNS REPEATS`. After each it writes a line of JSON: what this process holds.

Every run has settings of its own, so that descriptions' clusters, CAMs, refinement, training, prediction, scores and report are
computed anew; then REPEATS more find everything complete.
"""

import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

__all__ = ["TINY", "holdings"]

# The smallest demo that has every stage: 6 images to train on, parts of 4, 2 iterations.
TINY = [
    "dataset.train_scenes=6",
    "dataset.val_scenes=2",
    "train.iterations=2",
    "train.batch_size=2",
    "train.dynamic_from=1",
    "train.own_argmax_from=1",
    "train.segmenter.width=16",
    "predict.scales=[1.0]",
    "shards.images=4",
    "refine.par.iterations=2",
    "report.gallery_images=3",
]


def holdings(pid: int) -> dict[str, float]:
    """What a process and its children hold: resident MB, open files and sockets, threads, and how many processes they are."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        "rss_mb": round(sum(process.memory_info().rss for process in processes) / 2**20, 1),
        "handles": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "processes": len(processes),
    }


def temporary_files(folder: Path) -> int:
    """Files and folders below the folder for temporary files."""
    return sum(1 for _ in folder.rglob("*"))


def main(store: str, runs: int, repeats: int) -> None:
    from flows.excel import excel

    for number in range(runs + repeats):
        seed = min(number, runs - 1)
        began = time.monotonic()
        excel("demo", settings=[*TINY, f"knowledge.seed={seed}", f"train.seed={seed}"], store=store)
        seconds = round(time.monotonic() - began, 2)
        gc.collect()  # cycles that Python has not got to are no growth
        held = holdings(os.getpid()) | {"temporary": temporary_files(Path(tempfile.gettempdir()))}
        print(json.dumps({"run": number, "new": number < runs, "seconds": seconds, **held}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
