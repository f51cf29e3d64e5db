"""Two knowledge bases beside each other: nothing where nothing changed, and what an edit moved."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from artifacts.history import class_change_rows
from excel_core.config import KnowledgeSpec
from excel_core.errors import SettingError
from excel_core.text.knowledge import Knowledge, KnowledgeBase, build_knowledge
from excel_core.text.knowledge_diff import WeightedKnowledge, compare_knowledge

NAMES, EACH, WIDTH = ("cat", "dog", "bus"), 4, 16
SPEC = KnowledgeSpec(attributes=6, keep=6)


def base(seed=0, names=NAMES, width=WIDTH, edit=()):
    """A base of random directions; `edit` names rows of descriptions that are replaced by other directions."""
    draw = torch.Generator().manual_seed(seed)
    rows = lambda count: F.normalize(torch.randn(count, width, generator=draw), dim=1)  # noqa: E731
    templates, background, descriptions = rows(len(names)), rows(2), rows(EACH * len(names))
    texts = [f"a clean origami {name}. it is number {i}." for name in names for i in range(EACH)]
    for row in edit:
        descriptions[row] = F.normalize(torch.full((width,), 1.0) - 2 * descriptions[row], dim=0)
        texts[row] = texts[row].replace("is", "was")
    knowledge = build_knowledge(templates, background, descriptions, SPEC)
    return WeightedKnowledge(KnowledgeBase(knowledge, names, ("sky", "sea"), tuple(texts)), SPEC)


def test_nothing_changed():
    changes = compare_knowledge(base(), base())
    assert [change.name for change in changes] == list(NAMES)
    assert not any(change.changed or change.moved_in or change.moved_out for change in changes)
    assert all(change.cosine == pytest.approx(1) for change in changes)


def test_attributes_have_no_order():
    a = base()
    knowledge = a.base.knowledge
    turned = Knowledge(knowledge.text, knowledge.templates, knowledge.attributes.flip(0), knowledge.descriptions)
    b = WeightedKnowledge(dataclasses.replace(a.base, knowledge=turned), SPEC)
    assert not any(change.moved_in or change.moved_out for change in compare_knowledge(a, b))


def test_an_edit_is_found_and_its_cosines_are_those_of_the_texts():
    a, b = base(), base(edit=(5,))
    changes = {change.name: change for change in compare_knowledge(a, b, heaviest=6)}
    assert changes["dog"].added == ("a clean origami dog. it was number 1.",)
    assert changes["dog"].removed == ("a clean origami dog. it is number 1.",)
    assert not changes["cat"].added and not changes["bus"].removed
    for row, name in enumerate(NAMES):
        expected = float(a.base.knowledge.text[row] @ b.base.knowledge.text[row])
        assert changes[name].cosine == pytest.approx(expected, abs=1e-6) and changes[name].changed
    # Of all six attributes, as many went as came, each the centre of the base that it is named in.
    moved_in, moved_out = set(changes["cat"].moved_in), set(changes["cat"].moved_out)
    assert len(moved_in) == len(moved_out) > 0
    assert all(text in b.base.texts and text.startswith(f"a clean origami {name}.") for name, text in moved_in)
    assert all(text in a.base.texts for _, text in moved_out)


def test_rows_have_edited_classes_first_and_no_unchanged_one():
    rows = class_change_rows(compare_knowledge(base(), base(edit=(5,))))
    assert rows[0]["class"] == "dog" and rows[0]["texts"] == "+1 −1" and {row["texts"] for row in rows[1:]} == {"+0 −0"}
    assert class_change_rows(compare_knowledge(base(), base())) == []


def test_classes_that_came_and_went():
    changes = {change.name: change for change in compare_knowledge(base(), base(names=("cat", "dog", "car")))}
    assert list(changes) == ["cat", "dog", "bus", "car"]
    assert changes["bus"].cosine is changes["car"].cosine is None and changes["car"].changed
    assert len(changes["bus"].removed) == len(changes["car"].added) == EACH and not changes["car"].removed


def test_bases_without_attributes_and_of_two_clips():
    plain = base()
    bare = dataclasses.replace(plain.base.knowledge, attributes=plain.base.knowledge.attributes[:0])
    without = WeightedKnowledge(dataclasses.replace(plain.base, knowledge=bare), SPEC)
    assert all(not change.moved_in for change in compare_knowledge(plain, without))
    with pytest.raises(SettingError, match="T_c of 16 and 8 dimensions"):
        compare_knowledge(plain, base(width=8))
