"""Text embeddings, each kept in a file by the digest of its text, so that an edited text costs one forward pass.

    FOLDER/<digest of the text>.embedding     excel-embedding/1: a line with the digest of what follows, then (D,) float32, unit

One folder belongs to one CLIP on one device. Every text is encoded by itself: in a batch the last bits would depend on the
other texts, and so on which texts happened to be new.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.errors import StoreError
from excel_core.models.clip import FrozenClip
from excel_core.text.float_files import read_floats, write_floats

__all__ = ["EMBEDDING_FORMAT", "TextEmbeddings", "read_embedding"]

EMBEDDING_FORMAT = "excel-embedding/1"
SUFFIX = ".embedding"


class TextEmbeddings:
    """Encode texts, with `folder` as their cache; None: nothing is kept. `encoded` counts the forward passes."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.encoded = 0

    def encode(self, clip: FrozenClip, texts: Sequence[str]) -> Tensor:
        """texts, at least one → (T, D) float32 unit rows on the CPU. A missing or damaged file is written again."""
        return torch.from_numpy(np.stack([self._embedding(clip, text) for text in texts]))

    def path(self, text: str) -> Path | None:
        """The file of a text's embedding."""
        digest = hashlib.sha256(json.dumps(text).encode()).hexdigest()
        return None if self.folder is None else self.folder / f"{digest[:32]}{SUFFIX}"

    def _embedding(self, clip: FrozenClip, text: str) -> NDArray[np.float32]:
        path = self.path(text)
        stored = None if path is None else _read_or_none(path)
        if stored is not None:
            return stored
        self.encoded += 1
        row: NDArray[np.float32] = clip.encode_texts([text])[0].cpu().numpy()
        if path is not None:
            write_floats(path, EMBEDDING_FORMAT, row, of=_name_of(path))
        return row


def read_embedding(path: Path) -> NDArray[np.float32]:
    """The embedding (D,) in a file of such a folder; StoreError where it is damaged, or of another text or folder."""
    return read_floats(path, EMBEDDING_FORMAT, of=_name_of(path))


def _read_or_none(path: Path) -> NDArray[np.float32] | None:
    try:
        return read_embedding(path)
    except (OSError, StoreError):
        return None


def _name_of(path: Path) -> str:
    """Encoder and text: a file that is moved to another's name is no embedding of that text."""
    return f"{path.parent.name}/{path.stem}"
