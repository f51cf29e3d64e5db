"""Two knowledge bases beside each other: whose texts changed, how far each T_c moved, which attributes came and went."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from excel_core.config import KnowledgeSpec
from excel_core.errors import SettingError
from excel_core.text.knowledge import KnowledgeBase, attribute_weights, nearest_descriptions

__all__ = ["ClassChange", "WeightedKnowledge", "compare_knowledge"]

NamedAttribute = tuple[str, str]  # class and text of the nearest description
MIN_COSINE = 0.95  # from which two attributes of different bases count as the same


@dataclass(frozen=True)
class WeightedKnowledge:
    """A knowledge base with the spec that weighed its attributes."""

    base: KnowledgeBase
    spec: KnowledgeSpec


@dataclass(frozen=True)
class ClassChange:
    """A class in A and B. `cosine` of its T_c with itself, in [-1, 1]; None where it is in one of them alone. Attributes are
    named by their nearest description and its class."""

    name: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    cosine: float | None
    moved_in: tuple[NamedAttribute, ...] = ()
    moved_out: tuple[NamedAttribute, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything but noise in the last bits of T_c differs."""
        return bool(self.added or self.removed or self.cosine is None or self.cosine < 1 - 1e-6)


def compare_knowledge(a: WeightedKnowledge, b: WeightedKnowledge, heaviest: int = 5) -> list[ClassChange]:
    """One ClassChange per class of A or B, A's order first. `heaviest`: how many attributes belong to a class, by their weight
    in eq. 4. Attributes are matched one to one by cosine, at least MIN_COSINE. SettingError for different joint widths.
    """
    widths = [side.base.knowledge.text.shape[1] for side in (a, b)]
    if widths[0] != widths[1]:
        raise SettingError(f"T_c of {widths[0]} and {widths[1]} dimensions: two CLIPs cannot be compared; use one for both")
    partner = _matched(a.base.knowledge.attributes, b.base.knowledge.attributes)
    texts_a, texts_b = _texts_by_class(a.base), _texts_by_class(b.base)
    heaviest_a, heaviest_b = _heaviest(a, heaviest), _heaviest(b, heaviest)
    names_a, names_b = _attribute_names(a.base), _attribute_names(b.base)
    changes = []
    for name in dict.fromkeys((*a.base.class_names, *b.base.class_names)):
        old, new = texts_a.get(name, ()), texts_b.get(name, ())
        top_a, top_b = heaviest_a.get(name, []), heaviest_b.get(name, [])
        still_in_b = {partner[j] for j in top_a if j in partner}
        changes.append(
            ClassChange(
                name,
                added=tuple(text for text in new if text not in old),
                removed=tuple(text for text in old if text not in new),
                cosine=_cosine(a.base, b.base, name),
                moved_in=tuple(names_b[j] for j in top_b if j not in still_in_b),
                moved_out=tuple(names_a[j] for j in top_a if partner.get(j) not in top_b),
            )
        )
    return changes


def _matched(a: Tensor, b: Tensor) -> dict[int, int]:
    """attributes (A, D) and (A', D) → index in A of each attribute that is in both, to its index in B."""
    if not len(a) or not len(b):
        return {}
    cosine = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    rows, columns = linear_sum_assignment(-cosine.numpy())
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cosine[i, j] >= MIN_COSINE}


def _texts_by_class(base: KnowledgeBase) -> dict[str, tuple[str, ...]]:
    per_class = len(base.texts) // len(base.class_names)
    return {name: base.texts[i * per_class : (i + 1) * per_class] for i, name in enumerate(base.class_names)}


def _heaviest(side: WeightedKnowledge, count: int) -> dict[str, list[int]]:
    """The `count` attributes of each class with the largest weights, largest first."""
    knowledge = side.base.knowledge
    if not len(knowledge.attributes):
        return {}
    _, index = attribute_weights(knowledge.templates, knowledge.attributes, side.spec)
    return dict(zip(side.base.class_names, index[:, :count].tolist(), strict=True))


def _attribute_names(base: KnowledgeBase) -> list[NamedAttribute]:
    """Each attribute's nearest description, with its class."""
    if not len(base.knowledge.attributes):
        return []
    per_class = len(base.texts) // len(base.class_names)
    nearest = nearest_descriptions(base.knowledge, 1)[:, 0].tolist()
    return [(base.class_names[i // per_class], base.texts[i]) for i in nearest]


def _cosine(a: KnowledgeBase, b: KnowledgeBase, name: str) -> float | None:
    """Cosine of a class's T_c in both bases."""
    if name not in a.class_names or name not in b.class_names:
        return None
    old, new = (base.knowledge.text[base.class_names.index(name)].double() for base in (a, b))
    return float(torch.clamp(F.cosine_similarity(old, new, dim=0), -1, 1))
