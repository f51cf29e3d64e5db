"""Token embeddings of which only the trained rows are stored.

CLIP's vocabulary has 49,408 rows; the picture-book captions use a few hundred. The file keeps those, and a tensor
`token_embedding.rows` says which they are.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from excel_core.errors import ModelError

__all__ = ["expand_token_rows", "prune_token_rows"]

_WEIGHT, _ROWS = "token_embedding.weight", "token_embedding.rows"
_SIGMA = 0.02  # open_clip's initialisation of a token nobody trained


def expand_token_rows(state: Mapping[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """State dict with `token_embedding.weight` (vocab_size, D) in full; without `token_embedding.rows` a plain copy.

    A row that is not in the file is drawn from N(0, 0.02²) with a generator of seed 0, so that every user has the same.
    """
    full = dict(state)
    rows = full.pop(_ROWS, None)
    if rows is None:
        return full
    known = full[_WEIGHT]
    index = rows.long()
    if index.ndim != 1 or len(index) != len(known) or index.min() < 0 or index.max() >= vocab_size:
        raise ModelError(
            f"{_ROWS}: must be {len(known)} row numbers below {vocab_size}, got shape {tuple(rows.shape)} "
            f"up to {int(index.max())}; take weights and model configuration from the same place"
        )
    drawn = torch.randn(vocab_size, known.shape[1], generator=torch.Generator().manual_seed(0)) * _SIGMA
    weight = drawn.to(known.dtype)
    weight[index] = known
    full[_WEIGHT] = weight
    return full


def prune_token_rows(state: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Inverse of `expand_token_rows` for the sorted row numbers `rows` (R,) int: keeps those rows only."""
    pruned = dict(state)
    pruned[_WEIGHT] = state[_WEIGHT][rows.long()].clone()
    pruned[_ROWS] = rows.to(torch.int32)
    return pruned
