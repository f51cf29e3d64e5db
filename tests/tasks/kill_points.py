"""Kill a process before a chosen file operation: no `finally` runs, no buffer is written, as with SIGKILL."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from excel_core.config import RunSpec
from tasks.engine.stage import RunEnvironment
from tests.pipeline_runs import follow

__all__ = ["KILLED", "After", "Before", "killed_before", "killed_in_training"]

KILLED = 137
OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree")
# Training runs in a process that is forked from one without threads: a fork of this one may wait for ever for a lock of theirs.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])
Choose = Callable[[int, str, tuple[Any, ...]], bool]


def killed_before(choose: Choose, work: Callable[[], object]) -> int | None:
    """Do `work` in a forked process that ends before the first file operation of which `choose(number, event, arguments)` is
    true → its exit status: KILLED, or 0 where it came to its end."""
    process = multiprocessing.get_context("fork").Process(target=_work, args=(choose, work))
    process.start()
    process.join()
    return process.exitcode


@dataclass
class Before:
    """The first `event` whose path contains `part` and ends with `end`."""

    event: str
    part: str = ""
    end: str = ""

    def __call__(self, number: int, event: str, arguments: tuple[Any, ...]) -> bool:
        path = str(arguments[0])
        return event == self.event and self.part in path and path.endswith(self.end)


@dataclass
class After:
    """What follows the renaming of a file to `name`, once it has happened `times` times."""

    name: str
    times: int
    renames: list[int] = field(default_factory=list)

    def __call__(self, number: int, event: str, arguments: tuple[Any, ...]) -> bool:
        if len(self.renames) == self.times:
            return True
        if event == "os.rename" and str(arguments[1]).endswith(f"/{self.name}"):
            self.renames.append(number)
        return False


def killed_in_training(choose: Before | After, run: RunSpec, environment: RunEnvironment) -> int | None:
    """As `killed_before`, of a run up to its training."""
    process = SERVER.Process(target=_train, args=(choose, run, environment))
    process.start()
    process.join()
    return process.exitcode


def _train(choose: Choose, run: RunSpec, environment: RunEnvironment) -> None:
    _work(choose, lambda: follow(run, environment, "train"))


def _work(choose: Choose, work: Callable[[], object]) -> None:
    number = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal number
        if event in OPERATIONS and not (event == "open" and _only_reads(arguments)):
            number += 1
            if choose(number, event, arguments):
                os._exit(KILLED)

    sys.addaudithook(hook)  # before the operation; there is no way to remove one, so in this process alone
    work()
    os._exit(0)


def _only_reads(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
