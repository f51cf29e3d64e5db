"""Attributes that k-means made, kept in a file, so that another command about the same classes need not import scikit-learn.

    FOLDER/<key>.attributes     excel-attributes/1: a line with the digest of what follows, then (A, D) float32

The key is a digest of all that they depend on: the descriptions' embeddings, k-means' settings, its code here and
scikit-learn's version.
"""

import hashlib
import inspect
import json
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.config import KnowledgeSpec
from excel_core.errors import StoreError
from excel_core.text.float_files import read_floats, write_floats
from excel_core.text.knowledge import cluster_attributes

__all__ = ["ATTRIBUTES_FORMAT", "kept_attributes", "read_attributes"]

ATTRIBUTES_FORMAT = "excel-attributes/1"
SUFFIX = ".attributes"


def kept_attributes(folder: Path | None, descriptions: Tensor, spec: KnowledgeSpec) -> Tensor:
    """descriptions (n*C, D) unit rows → `cluster_attributes` (A, D), from a file in the folder, which is written where it is
    missing or damaged. None: nothing is kept."""
    if folder is None:
        return cluster_attributes(descriptions, spec)
    path = folder / f"{_key(descriptions, spec)}{SUFFIX}"
    with suppress(OSError, StoreError):
        return torch.from_numpy(read_attributes(path).reshape(-1, descriptions.shape[1]).copy())
    attributes = cluster_attributes(descriptions, spec)
    write_floats(path, ATTRIBUTES_FORMAT, attributes.numpy(), of=path.stem)
    return attributes


def read_attributes(path: Path) -> NDArray[np.float32]:
    """The values (A*D,) of such a file; OSError where there is none, StoreError where it is damaged or of another key."""
    return read_floats(path, ATTRIBUTES_FORMAT, of=path.stem)


def _key(descriptions: Tensor, spec: KnowledgeSpec) -> str:
    settings, code = [spec.attributes, spec.seed, spec.n_init], inspect.getsource(cluster_attributes)
    digest = hashlib.sha256(json.dumps([list(descriptions.shape), settings, code, version("scikit-learn")]).encode())
    digest.update(descriptions.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
