"""What the modules parity_clip_es.py and others make of a set of golden arrays."""

import re
from dataclasses import dataclass

from torch import Tensor

from excel_core.errors import StoreError
from excel_core.evaluation.parity import Arrays

__all__ = ["PeerSet", "image_numbers"]


@dataclass(frozen=True)
class PeerSet:
    """`outputs`: what was computed, under the set's own keys; `inputs`: keys that it was computed from."""

    outputs: dict[str, Tensor]
    inputs: frozenset[str]


def image_numbers(golden: Arrays, key: str, name: str) -> list[int]:
    """The n of every `key`_n in order; StoreError where there is none."""
    numbers = sorted(int(match[1]) for match in (re.fullmatch(rf"{key}_(\d+)", entry) for entry in golden) if match)
    if not numbers:
        raise StoreError(f"{name}.npz: has no array '{key}_0'; give the set that peers' parity describes (docs/methods.md)")
    return numbers
