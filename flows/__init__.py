"""Prefect flows: the whole chain, each stage alone, and the command line over them."""

import os

# Before torch is imported: an idle OpenMP thread spins for some microseconds, then sleeps. By default it spins for long,
# which makes the many small operations of refinement up to a hundred times slower beside any other busy process; if it
# slept at once, they would take three times as long on a machine of their own.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# Before dask is imported, and for the workers it starts: they say a line for every connection that comes and goes.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "error")
