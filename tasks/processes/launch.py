"""Training on several processes of this machine, one GPU each: torchrun over train_process.py, watched from here.

What the processes have to tell they write on standard output, one line of JSON each: losses, how far they are, the memory that
each took, or an error that a person can act on. Their standard input is a pipe whose other end this process holds. It closes
when this process ends, be it killed, and they end with it: nobody writes on into a folder whose lock is free.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from excel_core import errors
from excel_core.training.loop import LossRow
from tasks.engine.job_file import write_job
from tasks.engine.memory import Peak, measured_by_processes
from tasks.engine.stage import Job
from tasks.inputs.api_key import VARIABLE

__all__ = ["JOB_FILE", "LOSSES", "MEMORY", "MESSAGE", "launch_training"]

MESSAGE = "excel-train: "  # begins a line that is meant for this process
MEMORY, LOSSES = "memory", "losses"
JOB_FILE = ".job.json.tmp"  # in the folder to fill, where the next run clears what is called so
MAX_LINES = 60  # of the processes' last output, in the error when they died
EXIT_SECONDS = 20.0  # that torchrun gets to end


def launch_training(job: Job, folder: Path, progress: Callable[[int, Sequence[LossRow]], None]) -> None:
    """Fill the folder with what one process would; `progress` hears of every iteration that is done, with the losses that are
    new."""
    file = folder / JOB_FILE
    write_job(file, job, folder)
    output: deque[str] = deque(maxlen=MAX_LINES)
    failure: dict[str, Any] = {}
    rows: list[LossRow] = []
    peaks: list[Peak] = []
    try:
        with _torchrun(job.environment.processes, file) as process:
            for line in process.stdout or ():
                if not line.startswith(MESSAGE):
                    _note_output(line, output)
                    continue
                message = json.loads(line.removeprefix(MESSAGE))
                if LOSSES in message:
                    rows += [LossRow(*row) for row in message[LOSSES]]
                elif "done" in message:
                    progress(message["done"], tuple(rows))
                    rows.clear()
                elif MEMORY in message:
                    peaks.append(Peak.model_validate(message[MEMORY]))
                else:
                    failure = failure or message  # the first: the others only lost a partner
            status = process.wait()
    finally:
        file.unlink(missing_ok=True)
    if status:
        raise _error(job, status, failure, output)
    unmeasured = job.environment.processes - len(peaks)
    measured_by_processes(peaks + [Peak()] * unmeasured)


def _note_output(line: str, output: deque[str]) -> None:
    """Remember what else they write; what the stage itself says is shown."""
    if line.strip():
        output.append(line)
    if line.startswith("train:"):
        print(line, end="", file=sys.stderr, flush=True)


@contextmanager
def _torchrun(processes: int, file: Path) -> Iterator[subprocess.Popen[str]]:
    """`processes` processes over the job in `file`; none of them outlives the block."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", str(processes), "-m", "tasks.processes.train_process", str(file)]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    # PYTHONSAFEPATH: a folder `tasks` where the user happens to be must not be taken for ours.
    environment = {"OMP_NUM_THREADS": threads} | os.environ | {"PYTHONSAFEPATH": "1"}
    environment.pop(VARIABLE, None)  # they ask no language model
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # No shell; `file` is a path in the store.
    with subprocess.Popen(command, env=environment, encoding="utf-8", errors="replace", **pipes) as process:  # noqa: S603
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _error(job: Job, status: int, failure: dict[str, Any], output: deque[str]) -> Exception:
    """What one process would have raised, or the end of what they wrote."""
    kind = failure.get("error", "")
    if kind in errors.__all__:
        return getattr(errors, kind)(failure["message"])  # type: ignore[no-any-return]
    before, _, last_words = "".join(output).rpartition("Root Cause (first observed failure):\n")  # torchrun's last words
    return errors.WorkerError(
        f"{job.name}: its {job.environment.processes} processes ended with status {status}:\n{(last_words or before).rstrip()}"
    )
