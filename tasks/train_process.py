"""One of the processes that train together; torchrun starts them for tasks/team.py: python -m tasks.train_process FILE."""

import json
import os
import select
import sys
import threading
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from excel_core.datasets.masks import forbid_mask_access
from excel_core.errors import ExcelError
from tasks.engine.memory import MemoryWatch
from tasks.engine.stage import Work
from tasks.engine.work_file import read_work
from tasks.process_group import MEMORY, SAID
from tasks.train import STAGE, train_here


@record
def main() -> None:
    """Do the work in the file as one of the team; an error that one process would raise is told in a line."""
    _end_with_the_others()
    # Of the gradient of a 1x1 kernel, whose last strides mean nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    rank = int(os.environ["RANK"])
    try:
        work = _on_own_device(read_work(Path(sys.argv[1]), STAGE))
        guard = nullcontext() if STAGE.sees_masks(work.run) else forbid_mask_access(stage=STAGE.name)
        with MemoryWatch(gpu=work.place.device != "cpu") as watch, guard:
            train_here(work, lambda done: _tell(done=done) if rank == 0 else None)
        _tell(**{MEMORY: watch.peak.model_dump()})
        dist.destroy_process_group()
    except ExcelError as error:
        _tell(error=type(error).__name__, message=str(error))
        raise
    except OSError as error:
        if error.errno is not None:
            _tell(errno=error.errno, message=error.strerror, file=error.filename and str(error.filename))
        raise


def _on_own_device(work: Work) -> Work:
    """Join the team, over the fastest way between its devices."""
    if work.place.device != "cuda":
        dist.init_process_group("gloo")
        return work
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return replace(work, place=work.place.model_copy(update={"device": str(device)}))


def _end_with_the_others() -> None:
    """End at once when whoever started the team ends (its end of standard input closes), or torchrun (our parent)."""
    torchrun = os.getppid()

    def watch() -> None:
        while not select.select([sys.stdin], [], [], 1.0)[0] and os.getppid() == torchrun:
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _tell(**told: Any) -> None:
    os.write(1, f"\n{SAID}{json.dumps(told)}\n".encode())  # in one piece: all of them write to the same pipe


if __name__ == "__main__":
    main()
