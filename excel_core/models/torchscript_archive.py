"""Tensors of a TorchScript archive, read without running anything of it. OpenAI published its CLIPs as such archives.

    NAME/data.pkl        the module as a pickle: objects of classes `__torch__.…`, whose attributes are tensors and objects
    NAME/data/N          the numbers of storage N, not compressed
    NAME/code/…          the classes, as source: never looked at
    NAME/constants.pkl   what tells such an archive from a state dict: never looked at

`torch.jit.load` compiles the classes and runs their `__setstate__`. Here the pickle is taken apart by an interpreter of its
own (torchscript_pickle.py), which runs nothing.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.models.torchscript_pickle import DTYPES, ModuleObject, Name, PickleInterpreter, refused

__all__ = ["is_torchscript", "read_torchscript"]

MAX_PICKLE_BYTES = 2 * 2**20  # OpenAI's largest has a tenth of it
MAX_MEMBERS = MAX_NAMES = 100_000
MAX_DEPTH = 64


def is_torchscript(path: Path) -> bool:
    """Whether a file is such an archive: a zip, wherever it begins in the file, with a `constants.pkl`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The module's tensors on the CPU by the names that its state dict has. ModelError for an archive that needs its own code
    to be read, or has anything else in it than tensors; what `zipfile` raises where the file is damaged."""
    with zipfile.ZipFile(path) as file:
        archive = _Archive(file, path)
        module = PickleInterpreter(path, archive.storage).run(archive.read("data.pkl", MAX_PICKLE_BYTES))
    if not isinstance(module, ModuleObject):
        raise refused(path, "its data.pkl holds no module")
    return _named_tensors(module, path)


class _Archive:
    """The members of a zip that may be read: not compressed, and together no larger than the file."""

    def __init__(self, file: zipfile.ZipFile, path: Path) -> None:
        self.path, self._file = path, file
        members = file.infolist()
        if len(members) > MAX_MEMBERS or len({member.filename for member in members}) < len(members):
            raise refused(path, "it has too many members, or two of one name")
        self._members = {member.filename: member for member in members}
        self._root = next(name for name in self._members if name.endswith("/constants.pkl")).removesuffix("constants.pkl")
        self._bytes_left = path.stat().st_size  # members may overlap, so that a small file has many large ones
        self._storages: dict[tuple[str, torch.dtype], Tensor] = {}
        if self._root + "byteorder" in self._members and self.read("byteorder", 16) != b"little":
            raise refused(path, "its numbers are not little-endian")

    def read(self, name: str, limit: int) -> bytes:
        """The member NAME/`name`, of at most `limit` bytes."""
        member = self._members.get(self._root + name)
        if member is None:
            raise refused(self.path, f"{name} is missing")
        self._bytes_left -= member.file_size
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > limit or self._bytes_left < 0:
            raise refused(self.path, f"{name} is compressed, or larger than it can be")
        return self._file.read(member)

    def storage(self, saved: Any) -> Tensor:
        """The flat tensor of a storage that the pickle names by ("storage", type, N, device, count)."""
        match saved:
            case ("storage", Name(text=kind), str(key), str(), int(count)) if key.isdecimal() and kind in DTYPES:
                dtype = DTYPES[kind]
            case _:
                raise refused(self.path, "a storage is not of plain numbers")
        if (key, dtype) not in self._storages:
            content = self.read(f"data/{key}", self._bytes_left)
            if len(content) != count * dtype.itemsize:
                raise refused(self.path, f"data/{key} has {len(content)} bytes, expected {count} numbers of {dtype.itemsize}")
            flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._storages[key, dtype] = flat
        return self._storages[key, dtype]


def _named_tensors(module: ModuleObject, path: Path) -> dict[str, Tensor]:
    """The tensors below a module, by the attributes that lead to them, joined by dots."""
    tensors: dict[str, Tensor] = {}
    waiting: list[tuple[str, int, ModuleObject]] = [("", 0, module)]
    visited = 0
    while waiting:
        prefix, depth, parent = waiting.pop()
        for name, value in parent.attributes.items():
            visited += 1
            if visited > MAX_NAMES or depth > MAX_DEPTH:  # an object may be a part of itself
                raise refused(path, "its modules have too many parts")
            if isinstance(value, Tensor):
                tensors[f"{prefix}{name}"] = value
            elif isinstance(value, ModuleObject):
                waiting.append((f"{prefix}{name}.", depth + 1, value))
    return tensors
