"""zarr's store on a disk, for any disk. zarr creates a file exclusively by a hard link, which exFAT, many network shares and
file systems in user space do not have."""

from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

__all__ = ["ZarrFolder"]


class ZarrFolder(LocalStore):  # type: ignore[misc]  # zarr's types are left out (pyproject.toml)
    """A folder that one process fills, as a stage does under its lock: a file that is not there is made by writing and
    renaming."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write `value` unless there is such a file."""
        if not await self.exists(key):
            await self.set(key, value)
