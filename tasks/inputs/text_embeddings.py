"""Text embeddings, each kept by the digest of the CLIP and the text, so that an edited text costs one forward pass.

    STORE/texts/<clip's digest>/<text's digest>.npy     (D,) float32, unit

Every text is encoded by itself: in a batch the last bits would hang on its neighbours, and with them on which texts
happened to be new.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.files import written_then_renamed
from excel_core.models.clip import FrozenClip
from tasks.engine.identity import digest_of

__all__ = ["TextEmbeddings"]


class TextEmbeddings:
    """Encode texts through a folder of earlier results. `encoded` counts the forward passes made."""

    def __init__(self, store: Path, fingerprint: str, device: str) -> None:
        self.folder = store / "texts" / digest_of([fingerprint, device])[:32]
        self.encoded = 0

    def encode(self, clip: FrozenClip, texts: Sequence[str]) -> Tensor:
        """texts → (T, D) float32 unit rows on the CPU; a missing or damaged file is made again."""
        return torch.from_numpy(np.stack([self._one(clip, text) for text in texts]))

    def path(self, text: str) -> Path:
        """Where a text's embedding is kept."""
        return self.folder / f"{digest_of(text)[:32]}.npy"

    def _one(self, clip: FrozenClip, text: str) -> NDArray[np.float32]:
        row = self._read(text)
        if row is None:
            self.encoded += 1
            row = clip.encode_texts([text])[0].cpu().numpy()
            with written_then_renamed(self.path(text)) as temporary, temporary.open("wb") as file:
                np.save(file, row, allow_pickle=False)
        return row

    def _read(self, text: str) -> NDArray[np.float32] | None:
        try:
            row: NDArray[np.float32] = np.load(self.path(text), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return row if row.ndim == 1 and row.dtype == np.float32 and np.isfinite(row).all() else None
