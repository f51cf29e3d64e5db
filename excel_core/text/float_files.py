"""Files of float32 that can be made again in a moment, each with the digest of what it holds (checked_files.py)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from excel_core.checked_files import read_checked, write_checked
from excel_core.errors import StoreError
from excel_core.files import READ_ONLY

__all__ = ["read_floats", "write_floats"]


def read_floats(path: Path, format: str, of: str) -> NDArray[np.float32]:
    """The values (n,) that `write_floats` wrote; OSError where there is no such file, StoreError where it is damaged, or about
    something else than `of`."""
    payload = read_checked(path, format, of)
    if len(payload) % np.dtype(np.float32).itemsize:
        raise StoreError(f"{path}: must hold float32, got {len(payload)} bytes")
    return np.frombuffer(payload, dtype=np.float32)


def write_floats(path: Path, format: str, values: NDArray[np.float32], of: str) -> None:
    """Write values of any shape; on a disk that can only be read, nothing: a store there is good for single photos. Not synced:
    after a power cut, the digest shows what is missing."""
    try:
        write_checked(path, format, values.tobytes(), of, sync=False)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
