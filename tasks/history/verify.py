"""Every byte of every output against its marker: what checks before reuse, by size and time of change, cannot see."""

from pathlib import Path

from excel_core.errors import StoreError
from tasks.engine.output import MARKER, damaged_files
from tasks.history.garbage import KINDS

__all__ = ["verify_store"]


def verify_store(store: Path) -> tuple[int, dict[Path, list[str]]]:
    """→ how many outputs were read, and the damaged files of each damaged one. A damaged output loses its marker, so
    that the next run builds it again."""
    checked, damaged = 0, {}
    for folder in sorted(marker.parent for kind in KINDS for marker in (store / kind).glob(f"*/{MARKER}")):
        checked += 1
        try:
            names = damaged_files(folder)
        except StoreError:
            names = [MARKER]
        if names:
            damaged[folder] = names
            (folder / MARKER).unlink()
    return checked, damaged
