"""Training on several processes of this machine, a GPU each: torchrun over tasks/train_process.py, watched from here.

What the processes have to tell they write on standard output, a line of JSON each: how far they are, the memory that each
took (MEMORY), or an error that a person can act on. Their standard input is a pipe whose other end this process holds. It
closes when this process ends, be it killed, and they end with it: nobody writes on into a folder whose lock is free.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from excel_core import errors
from tasks.engine.memory import Peak, measured_by_processes
from tasks.engine.stage import Work
from tasks.engine.work_file import write_work

__all__ = ["MEMORY", "SAID", "WORK_FILE", "launch_training"]

SAID = "excel-train: "  # begins a line that is meant for this process
MEMORY = "memory"
WORK_FILE = ".work.json.tmp"  # in the folder to fill, where the next run clears what is called so
LINES = 60  # of what the processes said last, in the error when they died
PATIENCE = 20.0  # seconds that torchrun gets to end
Show = Callable[[int], None]


def launch_training(work: Work, show: Show) -> None:
    """Fill the work's folder with what one process would; `show` hears of every iteration that is done."""
    file = work.folder / WORK_FILE
    write_work(file, work)
    said: deque[str] = deque(maxlen=LINES)
    trouble: dict[str, Any] = {}
    peaks: list[Peak] = []
    try:
        with _torchrun(work.place.processes, str(file)) as process:
            for line in process.stdout or ():
                if line.startswith(SAID):
                    told = json.loads(line.removeprefix(SAID))
                    if "done" in told:
                        show(told["done"])
                    elif MEMORY in told:
                        peaks.append(Peak.model_validate(told[MEMORY]))
                    else:
                        trouble = trouble or told  # the first: the others only lost a partner
                else:
                    _hear(line, said)
            code = process.wait()
    finally:
        file.unlink(missing_ok=True)
    if code:
        raise _error(work, code, trouble, said)
    silent = work.place.processes - len(peaks)
    measured_by_processes(peaks + [Peak()] * silent)


def _hear(line: str, said: deque[str]) -> None:
    """Remember what else they say; what the stage itself says is shown."""
    if line.strip():
        said.append(line)
    if line.startswith("train:"):
        print(line, end="", file=sys.stderr, flush=True)


@contextmanager
def _torchrun(processes: int, file: str) -> Iterator[subprocess.Popen[str]]:
    """`processes` processes over the work in `file`; none of them outlives the block."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", str(processes), "-m", "tasks.train_process", file]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    # A folder `tasks` where the user happens to be must not be taken for ours.
    env = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads), "PYTHONSAFEPATH": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=env, text=True, errors="replace", **pipes) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _error(work: Work, code: int, trouble: dict[str, Any], said: deque[str]) -> Exception:
    """What one process would have raised, or the end of what they said."""
    kind = trouble.get("error", "")
    if "errno" in trouble:
        return OSError(trouble["errno"], trouble["message"], trouble["file"])
    if kind in errors.__all__:
        return getattr(errors, kind)(trouble["message"])  # type: ignore[no-any-return]
    before, _, last = "".join(said).rpartition("Root Cause (first observed failure):\n")  # torchrun's last words
    return errors.WorkerError(
        f"{work.name}: its {work.place.processes} processes ended with status {code}:\n{(last or before).rstrip()}"
    )
