"""Text embeddings, each kept in a file by the digest of its text, so that an edited text costs one forward pass.

    FOLDER/<digest of the text>.npy     (D,) float32, unit

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

from excel_core.files import written_then_renamed
from excel_core.models.clip import FrozenClip

__all__ = ["TextEmbeddings"]


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
        return None if self.folder is None else self.folder / f"{digest[:32]}.npy"

    def _embedding(self, clip: FrozenClip, text: str) -> NDArray[np.float32]:
        path = self.path(text)
        row = None if path is None else self._read(path)
        if row is None:
            self.encoded += 1
            row = clip.encode_texts([text])[0].cpu().numpy()
            if path is not None:
                with written_then_renamed(path) as temporary, temporary.open("wb") as file:
                    np.save(file, row, allow_pickle=False)
        return row

    def _read(self, path: Path) -> NDArray[np.float32] | None:
        """The cached embedding (D,), or None where the file is missing or cannot be one."""
        try:
            row: NDArray[np.float32] = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return row if row.ndim == 1 and row.dtype == np.float32 and np.isfinite(row).all() else None
