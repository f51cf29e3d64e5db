"""Read and write single files safely: atomic replacement, JSON, and torch files of which only tensors are unpickled."""

import errno
import io
import json
import os
import re
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from excel_core.errors import StoreError
from excel_core.sync import make_folder, sync_file, sync_folder

__all__ = [
    "READ_ONLY", "first_sentence", "is_dense_tensor", "load_tensors", "read_json", "write_json", "written_then_renamed",
]  # fmt: skip

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)  # of an OSError: nothing can be written there


def load_tensors(source: Path | io.BytesIO) -> Any:
    """Load a torch file of tensors, lists, dicts and numbers onto the CPU, whatever its suffix. ValueError for one that holds
    anything else, and whatever torch, zip and pickle raise for a damaged one."""
    import torch  # here, since most readers of files need none, and it takes seconds

    try:
        # of a path, torch would look at the suffix
        with warnings.catch_warnings(), nullcontext(source) if isinstance(source, io.BytesIO) else source.open("rb") as file:
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if not re.search("weights.only", str(error), re.IGNORECASE):
            raise
        # torch's own words advise to unpickle the rest, which runs it
        raise ValueError("it holds more than tensors, which is never run, or is damaged") from None


def is_dense_tensor(value: Any) -> bool:
    """Whether `value` is a tensor with its numbers in ordinary memory: not sparse, nested, quantised, nor on the meta
    device."""
    import torch

    if not isinstance(value, torch.Tensor) or value.is_nested or value.is_quantized or value.is_meta:
        return False
    return value.layout is torch.strided


def first_sentence(error: Exception) -> str:
    """The first sentence of an error's message, or its type. Messages of torch and safetensors may have many lines."""
    return re.split(r"\. |\n", str(error))[0] or type(error).__name__


@contextmanager
def written_then_renamed(path: Path, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    After a power cut `path` is the old file or the new one, and the new one once this has returned. Without `sync` it may have
    missing bytes: for files that are synced together later, or whose digest is checked and that cost little to make again.
    """
    make_folder(path.parent) if sync else path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.tmp")  # another machine may have our pid
    try:
        yield temporary
        if sync:
            sync_file(temporary)
        os.replace(temporary, path)
        if sync:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    with written_then_renamed(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON; StoreError when it is missing, not JSON, or nested beyond reading."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not readable ({error}); rerun the stage that writes it") from None
