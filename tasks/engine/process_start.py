"""Which process is meant. A pid alone may belong to another program by now; a pid and its start name one process for ever."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

__all__ = ["machine", "start_ticks"]


@cache
def machine() -> str:
    """This boot of this machine and, in a container, its own numbering of processes; "" where the system does not tell."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return ""


def start_ticks(pid: int) -> int | None:
    """When a process of this machine started, in hundredths of a second since boot. None where there is none, or only a zombie:
    a dead process that its parent has not waited for. Counted since boot, because setting the clock moves psutil's epoch time.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return round(100 * (process.create_time() - psutil.boot_time()))
    except psutil.NoSuchProcess:
        return None
