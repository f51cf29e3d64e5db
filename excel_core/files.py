"""Read and write single files safely: atomic replacement, JSON, and torch files of which only tensors are unpickled."""

import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.errors import StoreError

__all__ = ["first_sentence", "is_dense_tensor", "load_tensors", "read_json", "write_json", "written_then_renamed"]


def load_tensors(path: Path) -> Any:
    """Load a torch file of tensors, lists, dicts and numbers onto the CPU, whatever its suffix. Raises whatever torch, zip and
    pickle raise for a file that is damaged or holds anything else."""
    with warnings.catch_warnings(), path.open("rb") as file:  # of a path, torch would look at the suffix
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


def is_dense_tensor(value: Any) -> bool:
    """Whether `value` is a tensor with its numbers in ordinary memory: not sparse, nested, quantised, nor on the meta
    device."""
    if not isinstance(value, Tensor) or value.is_nested or value.is_quantized or value.is_meta:
        return False
    return value.layout is torch.strided


def first_sentence(error: Exception) -> str:
    """The first sentence of an error's message, or its type. Messages of torch and safetensors may have many lines."""
    return re.split(r"\. |\n", str(error))[0] or type(error).__name__


@contextmanager
def written_then_renamed(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    with written_then_renamed(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; StoreError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not readable ({error}); rerun the stage that writes it") from None
