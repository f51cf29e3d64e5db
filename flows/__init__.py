"""Prefect flows: the whole chain, each stage alone, and the command line over them."""

import ctypes
import os
import sys

# Before torch is imported: an idle OpenMP thread spins for some microseconds, then sleeps. By default it spins for long,
# which makes the many small operations of refinement up to a hundred times slower beside any other busy process; if it
# slept at once, they would take three times as long on a machine of their own.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# What a thread frees stays in the arena it came from, and glibc makes up to eight arenas a core for the threads that read,
# refine and write: memory grows with them for thousands of images (MALLOC_ARENA_MAX=16 python -m bench.scale). Two do.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # for processes started from here
if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # not every libc is glibc
    libc.mallopt(-8, int(os.environ["MALLOC_ARENA_MAX"]))  # -8: M_ARENA_MAX of <malloc.h>

# Before dask is imported, and for the workers it starts: they say a line for every connection that comes and goes.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
