"""Ready attributes from a file instead of k-means: the authors' `*_embedding_bank.pth`, .npy or .safetensors.

.pth, .pt        the authors': a list [centroids (D, A) as columns, class-by-cluster flags (C, A)]; the flags are not needed.
                 Or one tensor
.npy             one array
.safetensors     one tensor, of any name

Attributes may be rows or columns: the axis of length D, the CLIP's joint width, is that of the embedding. Where both axes have
this length, columns are attributes, as in the authors' files.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from excel_core.config import KnowledgeSpec
from excel_core.errors import ModelError, SettingError
from excel_core.files import first_sentence, is_dense_tensor, load_tensors
from excel_core.models.weight_files import file_kind, require_weights

__all__ = ["load_attributes", "ready_attributes", "used_attributes_file"]

FIELD = "knowledge.attributes_file"
SUFFIXES = (".pth", ".pt", ".npy", ".safetensors")
NUMPY = b"\x93NUMPY"  # its first bytes


def used_attributes_file(spec: KnowledgeSpec) -> Path | None:
    """The spec's file of ready attributes, where its mode uses one."""
    return Path(spec.attributes_file) if spec.attributes_file and spec.mode == "attributes" else None


def ready_attributes(spec: KnowledgeSpec, width: int) -> Tensor | None:
    """Attributes (A, D) of the spec's file, D = `width`; None where k-means makes them, or there are none. SettingError for a
    file that cannot be used."""
    path = used_attributes_file(spec)
    return load_attributes(path, width) if path else None


def load_attributes(path: Path, width: int) -> Tensor:
    """The file's attributes (A, D) float32 with D = `width`, not normalised. SettingError in one line for a file that is
    missing, not readable, of another width, not finite in float32, or with an attribute of length 0."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise SettingError(f"{FIELD}: {str(path)!r}: unknown kind of file; valid: {', '.join(SUFFIXES)}")
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise SettingError(f"{FIELD}: {str(path)!r} {problem}; give the path of a {', '.join(SUFFIXES)} file")
    try:
        matrix = _content(path)
    except ModelError as error:
        raise SettingError(f"{FIELD}: {error}") from None
    except Exception as error:  # torch, NumPy and safetensors raise many kinds; all mean an unreadable file
        why = first_sentence(error)
        raise SettingError(f"{FIELD}: {path}: not readable as a {kind} file ({why}); give another file") from None
    if not is_dense_tensor(matrix) or matrix.ndim != 2 or not matrix.is_floating_point():
        raise SettingError(f"{FIELD}: {path}: expected one matrix of real numbers, got {_kind(matrix)}")
    if width not in matrix.shape or not matrix.numel():
        shape = " × ".join(map(str, matrix.shape))
        raise SettingError(
            f"{FIELD}: {path}: expected attributes of width {width}, the joint width of the CLIP in use, got {shape}; "
            "give attributes that were made with this CLIP, or the CLIP they were made with (clip.model)"
        )
    rows: Tensor = (matrix.T if matrix.shape[0] == width else matrix).detach().float().contiguous()
    lengths = rows.norm(dim=1)  # not finite either where numbers are too large for float32
    if not lengths.isfinite().all() or not lengths.all():
        raise SettingError(f"{FIELD}: {path}: holds values that are not finite, or an attribute of zeros alone; make it again")
    return rows


def _content(path: Path) -> Any:
    """The matrix in a file of NumPy, torch or safetensors, which its content tells; else whatever is in it."""
    with path.open("rb") as file:
        if file.read(len(NUMPY)) == NUMPY:
            return torch.from_numpy(np.load(path, allow_pickle=False))
    require_weights(path, "give another file")
    if file_kind(path) == "safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path)
        return next(iter(tensors.values())) if len(tensors) == 1 else tensors
    saved = load_tensors(path)
    return saved[0] if isinstance(saved, list | tuple) and saved and isinstance(saved[0], Tensor) else saved


def _kind(content: Any) -> str:
    if isinstance(content, Tensor):
        odd = "" if is_dense_tensor(content) else "sparse, quantised or absent numbers, "
        return f"{odd}{str(content.dtype).removeprefix('torch.')} of shape {tuple(content.shape)}"
    if isinstance(content, dict):
        return f"{len(content)} tensors: {', '.join(sorted(map(str, content))[:3])}"
    return type(content).__name__
