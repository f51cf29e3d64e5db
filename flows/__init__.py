"""Prefect flows: the whole chain, each stage alone, and the command line over them."""

import ctypes
import os
import sys

import excel_core  # noqa: F401  sets OpenMP's wait policy, so before torch
from excel_core.proxies import keep_loopback_direct, leave_out_socks
from flows.any_locale import restart_in_utf8
from flows.installation import foreign_package

if os.path.basename(sys.argv[0]) == "excel":
    restart_in_utf8()

if problem := foreign_package():  # before any of them runs
    if os.path.basename(sys.argv[0]) == "excel":
        sys.exit(f"error: {problem}")  # a line, in place of the traceback of an import
    raise ImportError(problem)

# Prefect's servers are on this machine: no proxy stands before it.
keep_loopback_direct()
if note := leave_out_socks():
    print(note, file=sys.stderr)

# What a thread frees stays in the arena it came from, and glibc makes up to eight arenas a core for the threads that read,
# refine and write: memory grows with them for thousands of images (MALLOC_ARENA_MAX=16 python -m bench.scale). Two do.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # for processes started from here
if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # not every libc is glibc
    libc.mallopt(-8, int(os.environ["MALLOC_ARENA_MAX"]))  # -8: M_ARENA_MAX of <malloc.h>

# Before dask is imported, and for the workers it starts: they say a line for every connection that comes and goes.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
