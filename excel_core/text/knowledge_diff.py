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

Named = tuple[str, str]  # class, description
SAME = 0.95  # cosine from which two attributes of different bases are taken for one


@dataclass(frozen=True)
class WeightedKnowledge:
    """A knowledge base with the spec that weighed its attributes."""

    store: KnowledgeBase
    spec: KnowledgeSpec


@dataclass(frozen=True)
class ClassChange:
    """A class in A and B. `cosine` of its T_c with itself, in [-1, 1]; None where it is in one of them alone. Attributes are
    named by their nearest description and its class."""

    name: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    cosine: float | None
    moved_in: tuple[Named, ...] = ()
    moved_out: tuple[Named, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything but noise in the last bits of T_c differs."""
        return bool(self.added or self.removed or self.cosine is None or self.cosine < 1 - 1e-6)


def compare_knowledge(a: WeightedKnowledge, b: WeightedKnowledge, heaviest: int = 5) -> list[ClassChange]:
    """A class of A or B a row, A's order first. `heaviest`: attributes that count as a class's own, by their weight in eq. 4.

    Attributes are matched one to one by cosine; what is less than 0.95 alike is another attribute. SettingError for bases of
    different joint widths.
    """
    widths = [found.store.knowledge.text.shape[1] for found in (a, b)]
    if widths[0] != widths[1]:
        raise SettingError(f"T_c of {widths[0]} and {widths[1]} dimensions: two CLIPs cannot be compared; use one for both")
    partner = _matched(a.store.knowledge.attributes, b.store.knowledge.attributes)
    sides = [(_texts(found.store), _heaviest(found, heaviest), _names(found.store)) for found in (a, b)]
    (texts_a, top_a, names_a), (texts_b, top_b, names_b) = sides
    changes = []
    for name in dict.fromkeys((*a.store.class_names, *b.store.class_names)):
        old, new = texts_a.get(name, ()), texts_b.get(name, ())
        own_a, own_b = top_a.get(name, []), top_b.get(name, [])
        kept = {partner[j] for j in own_a if j in partner}
        changes.append(
            ClassChange(
                name,
                tuple(text for text in new if text not in old),
                tuple(text for text in old if text not in new),
                _cosine(a.store, b.store, name),
                tuple(names_b[j] for j in own_b if j not in kept),
                tuple(names_a[j] for j in own_a if partner.get(j) not in own_b),
            )
        )
    return changes


def _matched(a: Tensor, b: Tensor) -> dict[int, int]:
    """attributes (A, D) and (A', D) → index in A of each attribute that is in both, to its index in B."""
    if not len(a) or not len(b):
        return {}
    cosine = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    rows, columns = linear_sum_assignment(-cosine.numpy())
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cosine[i, j] >= SAME}


def _texts(store: KnowledgeBase) -> dict[str, tuple[str, ...]]:
    each = len(store.texts) // len(store.class_names)
    return {name: store.texts[i * each : (i + 1) * each] for i, name in enumerate(store.class_names)}


def _heaviest(found: WeightedKnowledge, count: int) -> dict[str, list[int]]:
    """Attributes of each class, the heaviest first."""
    knowledge = found.store.knowledge
    if not len(knowledge.attributes):
        return {}
    _, index = attribute_weights(knowledge.templates, knowledge.attributes, found.spec)
    return dict(zip(found.store.class_names, index[:, :count].tolist(), strict=True))


def _names(store: KnowledgeBase) -> list[Named]:
    if not len(store.knowledge.attributes):
        return []
    each = len(store.texts) // len(store.class_names)
    return [(store.class_names[i // each], store.texts[i]) for i in nearest_descriptions(store.knowledge, 1)[:, 0].tolist()]


def _cosine(a: KnowledgeBase, b: KnowledgeBase, name: str) -> float | None:
    if name not in a.class_names or name not in b.class_names:
        return None
    old, new = (store.knowledge.text[store.class_names.index(name)].double() for store in (a, b))
    return float(torch.clamp(F.cosine_similarity(old, new, dim=0), -1, 1))
