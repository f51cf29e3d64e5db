"""How far class texts T_c move by chance: the same descriptions, clustered again from other random states.

k-means ends in another optimum after any edit, so that T_c of classes that nobody edited move too. An edit moved a class for
sure where it moved it further than clustering alone does.
"""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.config import KnowledgeSpec
from excel_core.text.attributes_file import used_attributes_file
from excel_core.text.knowledge import Knowledge, build_knowledge

__all__ = ["RECLUSTERINGS", "movements", "reclustered_movements"]

RECLUSTERINGS = 19  # one more movement of the same kind is the largest of 20 in 5 % of cases
MAX_SEED = 2**32


def movements(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """T_c before and after (C, D), of any length → 1 − cosine of each class (C,), in [0, 2]."""
    cosines = F.cosine_similarity(a.double(), b.double(), dim=1)
    return np.asarray(1 - cosines.clamp(-1, 1).numpy())


def reclustered_movements(knowledge: Knowledge, spec: KnowledgeSpec, count: int = RECLUSTERINGS) -> NDArray[np.float64]:
    """The movement of each class's T_c (count, C) when the same descriptions are clustered with `count` other random states.
    Zeros where `spec` clusters nothing: another mode, or attributes from a file."""
    classes, before = len(knowledge.templates), knowledge.text[: len(knowledge.templates)]
    if spec.mode != "attributes" or used_attributes_file(spec) is not None:
        return np.zeros((count, classes))
    background = knowledge.text[classes:]
    moved = []
    for step in range(1, count + 1):
        with_other_seed = spec.model_copy(update={"seed": (spec.seed + step) % MAX_SEED})
        again = build_knowledge(knowledge.templates, background, knowledge.descriptions, with_other_seed)
        moved.append(movements(before, again.text[:classes]))
    return np.stack(moved)
