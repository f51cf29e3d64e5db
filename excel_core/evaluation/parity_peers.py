"""Hold the peer methods against golden arrays of their published programs (`excel parity-peers DIR --clip FILE`).

DIR has a file SET.npz for each set in SETS. Everything goes through the functions that the stages call, under the method's
variant `reference`; sizes and the number of images are the file's. docs/methods.md says what each key is.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from excel_core.errors import StoreError
from excel_core.evaluation.parity import Arrays, Comparison, Tolerances, compare_array, load_goldens
from excel_core.evaluation.parity_clip_es import compute_clip_es
from excel_core.evaluation.parity_weclip import compute_weclip, compute_weclip_plus
from excel_core.evaluation.peer_set import PeerSet
from excel_core.models.clip import FrozenClip
from excel_core.models.clip_weights import clip_from_openai_state

__all__ = ["SETS", "SetComparison", "compare_with_peers"]

TOLERANCES = Tolerances(array=1e-4, labels=1e-3, loss=5e-5)
HALF = Tolerances(array=1e-3, labels=1e-3)  # one unit of float16

# A set's name → what computes its keys. A set whose file is missing is named, and not compared.
SETS: dict[str, Callable[[Arrays, FrozenClip, Path], PeerSet]] = {
    "clip_es": compute_clip_es,
    "weclip": compute_weclip,
    "weclip_plus": compute_weclip_plus,
}


@dataclass(frozen=True)
class SetComparison:
    """A set's keys, compared; of a set without a file, `missing` says so."""

    name: str
    results: list[Comparison] = field(default_factory=list)
    missing: str = ""


def compare_with_peers(folder: Path, clip_file: Path) -> list[SetComparison]:
    """Compare every set of SETS that `folder` holds. `clip_file` (.npz): the CLIP, under OpenAI's names.

    A key that no set has, and one that a set ought to have and lacks, is a Comparison that fails. StoreError where the folder
    holds no set at all, or where a file cannot be read.
    """
    if not any((folder / f"{name}.npz").is_file() for name in SETS):
        raise StoreError(f"{folder}: holds no set of golden arrays; expected {', '.join(f'{name}.npz' for name in SETS)}")
    state = {key: torch.from_numpy(value) for key, value in load_goldens(clip_file).items()}
    clip = clip_from_openai_state(state, quick_gelu=True)
    return [_compare_set(name, folder, clip) for name in SETS]


def _compare_set(name: str, folder: Path, clip: FrozenClip) -> SetComparison:
    path = folder / f"{name}.npz"
    if not path.is_file():
        return SetComparison(name, missing=f"{path} is not there; not compared")
    golden = load_goldens(path)
    computed = SETS[name](golden, clip, folder)
    comparisons = [_compare_key(key, computed.outputs[key], golden) for key in golden if key in computed.outputs]
    unknown = sorted(golden.keys() - computed.outputs.keys() - computed.inputs)
    absent = sorted(computed.outputs.keys() - golden.keys())
    comparisons += [Comparison(f"{key} (unknown: nothing computes it)", float("nan"), 0.0) for key in unknown]
    comparisons += [Comparison(f"{key} (the set has no such key)", float("nan"), 0.0) for key in absent]
    return SetComparison(name, comparisons)


def _compare_key(key: str, computed: Tensor, golden: Arrays) -> Comparison:
    array = golden[key]
    tolerances = HALF if array.dtype == np.float16 else TOLERANCES
    if array.dtype == bool or re.search(r"labels|_target$", key):
        array, computed = array.astype(np.uint8), computed.to(torch.uint8)
    return compare_array(key, computed, array, tolerances)
