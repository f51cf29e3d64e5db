"""Prefect flows: the whole chain, each stage alone, and the command line over them."""

import os

# Before torch is imported: idle OpenMP threads sleep instead of spinning. Beside any other busy process the spinning
# kind makes the many small operations of refinement up to a hundred times slower; alone it gains nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
