"""A process that has imported everything, with the file layer preloaded, and forks a child for every attempt at the chain.

Its first argument is an Attempt that nothing disturbs, from which it learns what a run imports. Then it reads an Attempt as a
line of JSON from its input, and answers with a line: how the child ended. One child at a time; the server has no other thread,
so that children start whole.
"""

import ctypes
import faulthandler
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.file_layer import FAIL_FROM, PRELOAD, compiled_layer

__all__ = ["KILLED", "REFUSED", "Attempt", "AttemptServer", "Ended"]

PATIENCE_SECONDS = 300  # until a child is taken to hang
KILLED, REFUSED, BROKEN = -9, 3, 1  # exit status: by the layer; with one line; with a traceback


@dataclass(frozen=True)
class Attempt:
    """What a child is to do: run the chain up to stage `last` in `store`, and meet with `action` at the `change`-th change
    after it came to `place` for the first time. `log`: the layer's log. `keep`: where the layer keeps what is synced; "":
    nowhere."""

    store: str
    log: str
    keep: str = ""
    last: str = "report"
    place: str = ""
    change: int = 0
    action: int = 0
    error: int = 0
    kinds: int = 0
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit status (negative: its signal), seconds, and the last of what it printed."""

    status: int
    seconds: float
    output: str


class AttemptServer:
    """The server, as a test sees it."""

    def __init__(self, first: Attempt, output: Path) -> None:
        threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.attempt_server", json.dumps(asdict(first)), str(output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | threads | {PRELOAD: str(compiled_layer())},
            text=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n", "the server of attempts did not start"

    def run(self, attempt: Attempt) -> Ended:
        """Run an attempt to its end, whatever that is. Its log begins anew."""
        Path(attempt.log).unlink(missing_ok=True)
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(attempt)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server of attempts has ended"
        return Ended(**json.loads(answer))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve(first: Attempt, output: Path) -> None:
    """Make the first attempt, and then those that are asked for."""
    from tests.faults import small_chain

    small_chain.warm_up(lambda: _be_child(first, output))
    gc.freeze()  # what is there is never freed: children share its pages
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        started, attempt = time.perf_counter(), Attempt(**json.loads(line))
        child = os.fork()
        if child == 0:
            os._exit(_be_child(attempt, output))
        _, status = os.waitpid(child, 0)
        ended = Ended(
            os.waitstatus_to_exitcode(status), time.perf_counter() - started, output.read_text(encoding="utf-8")[-4000:]
        )
        print(json.dumps(asdict(ended)), file=answers, flush=True)


def _be_child(attempt: Attempt, output: Path) -> int:
    """Make the attempt in this process → the exit status."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
    os.environ.update(attempt.environment)
    status = _attempt(attempt)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _attempt(attempt: Attempt) -> int:
    """→ the exit status."""
    from tasks.engine.failures import in_one_line
    from tests.faults import small_chain

    layer = ctypes.CDLL(None)
    layer.layer_begin(attempt.store.encode(), attempt.log.encode(), attempt.keep.encode())
    came_there = False

    def place(name: str) -> None:
        layer.layer_note(name.encode())
        come_to(name)

    def come_to(name: str) -> None:
        nonlocal came_there
        if name == attempt.place and not came_there:
            came_there = True
            layer.layer_arm(ctypes.c_long(attempt.change), attempt.action, attempt.error, ctypes.c_uint(attempt.kinds))
        elif came_there and attempt.action != FAIL_FROM:  # the place had fewer changes than in an undisturbed run
            layer.layer_arm(ctypes.c_long(0), 0, 0, ctypes.c_uint(0))

    come_to("")  # a run's first changes have no place yet
    try:
        small_chain.run_chain(Path(attempt.store), attempt.last, place)
    except Exception as error:
        message = in_one_line(error)
        if message is None or "\n" in message:
            traceback.print_exc()
            return BROKEN
        print(f"{type(error).__name__}: {message}")
        return REFUSED
    return 0


if __name__ == "__main__":
    _serve(Attempt(**json.loads(sys.argv[1])), Path(sys.argv[2]))
