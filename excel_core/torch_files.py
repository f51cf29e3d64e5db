"""Files that torch wrote, whoever wrote them: tensors alone are unpickled, and a damaged one says no more than its error."""

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["first_words", "is_plain", "load_tensors"]


def load_tensors(path: Path) -> Any:
    """What the file holds, on the CPU; whatever torch, zip and pickle raise for one that is damaged or holds more than tensors,
    lists, dicts and numbers. Its name may end in anything."""
    with warnings.catch_warnings(), path.open("rb") as file:  # of a path, torch would look at the suffix
        warnings.simplefilter("ignore")
        return torch.load(file, map_location="cpu", weights_only=True)


def is_plain(value: Any) -> bool:
    """Whether it is a tensor with its numbers in ordinary memory: not sparse, nested or quantised, nor a shape alone (meta)."""
    if not isinstance(value, Tensor) or value.is_nested or value.is_quantized or value.is_meta:
        return False
    return value.layout is torch.strided


def first_words(error: Exception) -> str:
    """The first sentence of what torch, zip, NumPy or safetensors says, which may go on for many lines; or the error's kind."""
    return re.split(r"\. |\n", str(error))[0] or type(error).__name__
