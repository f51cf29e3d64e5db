"""The descriptions that come with excel: how many, their form, that no two say the same, and that CLIP reads them whole."""

import json
import re
from itertools import combinations

import open_clip
import pytest

from excel_core.text.prompts import load_prompts
from tests.conftest import ROOT

PROMPTS = ROOT / "prompts"
COUNTS = {"voc": 20, "coco": 80, "world": 10}
EACH = 20
LONGEST = 77  # tokens of CLIP's text tower, start and end included


def _texts(name):
    """(class, text) of every description in a file, read without the loader that is tested elsewhere."""
    classes = json.loads((PROMPTS / "descriptions" / f"{name}.json").read_text())["classes"]
    return [(of_class, text) for of_class, texts in classes.items() for text in texts]


@pytest.fixture(scope="module")
def photographed():
    """All descriptions of photographed things."""
    return _texts("voc") + _texts("coco")


@pytest.mark.parametrize("name", COUNTS)
def test_every_class_has_its_descriptions(name):
    classes = json.loads((PROMPTS / "descriptions" / f"{name}.json").read_text())["classes"]
    assert list(classes) == list(load_prompts(PROMPTS / f"{name}.yaml").class_names)
    assert len(classes) == COUNTS[name] and {len(texts) for texts in classes.values()} == {EACH}


@pytest.mark.parametrize("name", ["voc", "coco"])  # the drawn world's are its captions' words
def test_they_have_the_form_that_the_instruction_asks_for(name):
    for of_class, text in _texts(name):
        start = f"a clean origami {of_class}. it "
        assert text.startswith(start) and text == text.lower() and text.isascii() and text.isprintable()
        said = text.removeprefix(start)
        assert re.fullmatch(r"[^.]*\.", said) and said == " ".join(said.split())  # one sentence
        assert 6 <= len(said.split()) <= 25, text


@pytest.mark.parametrize("name", COUNTS)
def test_clip_reads_them_whole(name):
    tokenizer = open_clip.SimpleTokenizer()
    assert max(len(tokenizer.encode(text)) + 2 for _, text in _texts(name)) <= LONGEST


def test_two_thousand_are_distinct(photographed):
    """Also with the class left out, so that no sentence serves two classes."""
    assert len(photographed) == 2000
    assert len({text for _, text in photographed}) == len({text.partition(". it ")[2] for _, text in photographed}) == 2000


def test_no_two_are_nearly_the_same(photographed):
    """Jaccard similarity of their words, the class left out."""
    words = [frozenset(re.findall(r"[a-z0-9'-]+", text.partition(". it ")[2])) for _, text in photographed]
    close = [(a, b) for a, b in combinations(range(len(words)), 2) if _similarity(words[a], words[b]) > 0.6]
    assert not close, [(photographed[a], photographed[b]) for a, b in close]


def _similarity(a, b):
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
