"""One of the processes that train together. torchrun starts them for launch.py: python -m tasks.processes.train_process F."""

import json
import os
import select
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from excel_core.errors import ExcelError
from excel_core.training.loop import LossRow
from tasks.engine.failures import plain_failures
from tasks.engine.job_file import read_job
from tasks.engine.memory import MemoryWatch
from tasks.engine.stage import Job, mask_access
from tasks.pipeline import STAGES
from tasks.processes.launch import LOSSES, MEMORY, MESSAGE
from tasks.stages.train import train_here

ROWS_AT_ONCE = 15  # of losses: a line of at most 4096 bytes is written to a pipe in one piece


@record
def main() -> None:
    """Do the job in the file as one of the process group; tell an error that one process would raise in one line."""
    _end_with_the_others()
    # Of the gradient of a 1x1 kernel, whose last strides mean nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    is_first = os.environ["RANK"] == "0"
    try:
        job, folder = read_job(Path(sys.argv[1]), STAGES["train"])
        job = _join_group(job)
        folders_read = [output.folder for output in job.inputs.values()]
        with (
            plain_failures(job.name, job.environment.store, folders_read),
            MemoryWatch(gpu=job.environment.device != "cpu") as watch,
            mask_access(job),
        ):
            train_here(job, folder, _tell_progress if is_first else lambda done, rows: None)
        _tell(**{MEMORY: watch.peak.model_dump()})
        dist.destroy_process_group()
    except ExcelError as error:
        _tell(error=type(error).__name__, message=str(error))
        raise


def _join_group(job: Job) -> Job:
    """Join the process group, over the fastest way between its devices; the job on this process' own device."""
    if job.environment.device != "cuda":
        dist.init_process_group("gloo")
        return job
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return replace(job, environment=job.environment.model_copy(update={"device": str(device)}))


def _end_with_the_others() -> None:
    """End at once when whoever launched the group ends (its end of standard input closes), or torchrun (our parent)."""
    torchrun = os.getppid()

    def watch() -> None:
        while not select.select([sys.stdin], [], [], 1.0)[0] and os.getppid() == torchrun:
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tell_progress(done: int, rows: Sequence[LossRow]) -> None:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        _tell(**{LOSSES: [list(vars(row).values()) for row in rows[start : start + ROWS_AT_ONCE]]})
    _tell(done=done)


def _tell(**message: Any) -> None:
    os.write(1, f"\n{MESSAGE}{json.dumps(message)}\n".encode())  # in one piece: all of them write to the same pipe


if __name__ == "__main__":
    main()
