"""Ready attributes from a file instead of k-means: the authors' `*_embedding_bank.pth`, .npy or .safetensors.

.pth, .pt        the authors': a list [centroids (D, A) as columns, class-by-cluster flags (C, A)], which are not needed; or one
                 tensor
.npy             one array
.safetensors     one tensor, of any name

Rows or columns: the axis as long as the CLIP's joint width D is that of the embedding. Where both are, columns are taken for
attributes, as the authors have it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from excel_core.errors import SettingError
from excel_core.torch_files import first_words, is_plain, load_tensors

__all__ = ["load_attributes"]

FIELD = "knowledge.attributes_file"


def load_attributes(path: Path, width: int) -> Tensor:
    """The file's attributes (A, D) float32 with D = `width`, of the length they have there. SettingError in one line for a file
    that is missing, not readable, of another width, not finite in float32, or of length 0 somewhere."""
    kind = path.suffix.lower()
    if kind not in READERS:
        raise SettingError(f"{FIELD}: {str(path)!r}: unknown kind of file; valid: {', '.join(READERS)}")
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise SettingError(f"{FIELD}: {str(path)!r} {what}; give the path of a {', '.join(READERS)} file")
    try:
        found = READERS[kind](path)
    except Exception as error:  # torch, NumPy and safetensors raise many kinds; all mean an unreadable file
        why = first_words(error)
        raise SettingError(f"{FIELD}: {path}: not readable as a {kind} file ({why}); give another file") from None
    if not is_plain(found) or found.ndim != 2 or not found.is_floating_point():
        raise SettingError(f"{FIELD}: {path}: expected one matrix of real numbers, got {_kind(found)}")
    if width not in found.shape or not found.numel():
        shape = " × ".join(map(str, found.shape))
        raise SettingError(
            f"{FIELD}: {path}: expected attributes of width {width}, the joint width of the CLIP in use, got {shape}; "
            "give attributes that were made with this CLIP, or the CLIP they were made with (clip.model)"
        )
    rows: Tensor = (found.T if found.shape[0] == width else found).detach().float().contiguous()
    lengths = rows.norm(dim=1)  # not finite either where numbers are too large for float32
    if not lengths.isfinite().all() or not lengths.all():
        raise SettingError(f"{FIELD}: {path}: holds values that are not finite, or an attribute of zeros alone; make it again")
    return rows


def _torch(path: Path) -> Any:
    found = load_tensors(path)
    return found[0] if isinstance(found, list | tuple) and found and isinstance(found[0], Tensor) else found


def _numpy(path: Path) -> Any:
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    found = load_file(path)
    return next(iter(found.values())) if len(found) == 1 else found


READERS: dict[str, Callable[[Path], Any]] = {".pth": _torch, ".pt": _torch, ".npy": _numpy, ".safetensors": _safetensors}


def _kind(found: Any) -> str:
    if isinstance(found, Tensor):
        odd = "" if is_plain(found) else "sparse, quantised or absent numbers, "
        return f"{odd}{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
    if isinstance(found, dict):
        return f"{len(found)} tensors: {', '.join(sorted(map(str, found))[:3])}"
    return type(found).__name__
