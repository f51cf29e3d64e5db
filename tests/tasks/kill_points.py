"""Kill a forked process before a chosen file operation: no `finally` runs, no buffer is written, as with SIGKILL."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["KILLED", "killed_before"]

KILLED = 137
OPERATIONS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree")
Choose = Callable[[int, str, tuple[Any, ...]], bool]


def killed_before(choose: Choose, work: Callable[[], object]) -> int | None:
    """Do `work` in a forked process that ends before the first file operation of which `choose(number, event, arguments)` is
    true → its exit status: KILLED, or 0 where it came to its end."""
    process = multiprocessing.get_context("fork").Process(target=_work, args=(choose, work))
    process.start()
    process.join()
    return process.exitcode


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
