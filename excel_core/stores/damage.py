"""One line for a file of the store that cannot be read, whatever is wrong with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from excel_core.errors import MACHINE_ERRORS, ExcelError, StoreError
from excel_core.files import first_sentence

__all__ = ["refuse_damaged"]


@contextmanager
def refuse_damaged(path: Path, stage: str) -> Iterator[None]:
    """StoreError in one line for whatever pandas, Arrow, zarr and its codecs raise for a damaged file: dozens of kinds.
    What the machine lacks is no damage."""
    try:
        yield
    except (ExcelError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        raise StoreError(f"{path}: not readable ({first_sentence(error)}); rerun {stage}") from None
