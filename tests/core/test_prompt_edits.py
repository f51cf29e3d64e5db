"""What was edited between two class sets, what clustering alone moves, and a prompt set of one's own."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.config import KnowledgeSpec
from excel_core.errors import PromptError, SettingError
from excel_core.text.class_sets import class_set_of_file
from excel_core.text.descriptions import load_descriptions
from excel_core.text.knowledge import build_knowledge
from excel_core.text.knowledge_noise import movements, reclustered_movements
from excel_core.text.new_prompts import new_prompts
from excel_core.text.prompt_edits import Words, background_edit, class_edits
from excel_core.text.prompts import ClassPrompt, PromptSet, load_prompts

SET = PromptSet("mine", "a photo of {}.", (ClassPrompt("cat", "cat"), ClassPrompt("dog", "dog hound")), ("sky", "sea"))
TEXTS = {"cat": ["it purrs", "it has fur"], "dog": ["it barks", "it has fur"]}


def _knowledge(spec, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = lambda count: F.normalize(torch.randn(count, 16, generator=draw), dim=1)  # noqa: E731
    return build_knowledge(rows(3), rows(2), rows(30), spec)


def test_an_edit_is_told_class_by_class():
    synonyms = replace(SET, classes=(SET.classes[0], ClassPrompt("dog", "dog")), background=("sky", "road"))
    edits = class_edits(Words(SET, TEXTS), Words(synonyms, TEXTS | {"cat": ["it has fur", "it meows"]}))
    assert edits["cat"].prompt is None and edits["cat"].added == ("it meows",) and edits["cat"].removed == ("it purrs",)
    assert edits["dog"].prompt == ("a photo of dog hound.", "a photo of dog.") and edits["dog"].edited
    background = background_edit(SET, synonyms)
    assert background.added == ("a photo of road.",) and background.removed == ("a photo of sea.",)


def test_the_same_words_in_another_order_are_no_edit():
    turned = {name: texts[::-1] for name, texts in TEXTS.items()}
    assert not any(edit.edited for edit in class_edits(Words(SET, TEXTS), Words(SET, turned)).values())
    assert not background_edit(SET, replace(SET, background=SET.background[::-1])).edited


def test_a_template_is_an_edit_of_every_class():
    edits = class_edits(Words(SET, TEXTS), Words(replace(SET, template="a drawing of {}."), TEXTS))
    assert all(edit.prompt and not edit.added for edit in edits.values())


def test_a_movement_is_one_less_the_cosine():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    assert movements(a, torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]])) == pytest.approx([0, 2, 1 - 0.5**0.5])


def test_noise_is_what_other_seeds_of_the_same_texts_give():
    spec = KnowledgeSpec(attributes=6, keep=4, n_init=1, seed=2**32 - 1)  # whose next seeds begin at 0 again
    knowledge = _knowledge(spec)
    noise = reclustered_movements(knowledge, spec, 3)
    assert noise.shape == (3, 3) and (noise >= 0).all() and noise.max() > 1e-6
    again = _knowledge(spec.model_copy(update={"seed": 2})).text[:3]
    assert noise[2] == pytest.approx(1 - F.cosine_similarity(knowledge.text[:3], again).numpy(), abs=1e-6)


@pytest.mark.parametrize("spec", [{"mode": "class_means"}, {"mode": "own_descriptions"}, {"mode": "none"}])
def test_there_is_no_noise_where_nothing_is_clustered(spec):
    spec = KnowledgeSpec(**spec)
    assert np.array_equal(reclustered_movements(_knowledge(spec), spec, 2), np.zeros((2, 3)))


@pytest.mark.parametrize("source", ["voc", "coco", "world"])
@pytest.mark.parametrize("name", ["mine", "mine.yaml", "null", "1e3", "a: b", "vögel", "v1.2"])
def test_a_new_set_is_the_old_one_under_a_name_of_its_own(source, name, tmp_path):
    made = new_prompts(str(tmp_path / name), source)
    stem = name.removesuffix(".yaml")
    assert made.classes == tmp_path / f"{stem}.yaml" and made.descriptions == tmp_path / f"{stem}.json"
    old = class_set_of_file(source)
    assert load_prompts(made.classes) == replace(old, name=stem)
    assert load_descriptions(made.descriptions, old, 20).texts.keys() == set(old.class_names)
    comments = [line for line in made.source.read_text().splitlines() if line.startswith("#")]
    assert [line for line in made.classes.read_text().splitlines() if line.startswith("#")] == comments
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{stem}.json", f"{stem}.yaml"]


def test_a_set_without_descriptions_is_copied_without(tmp_path):
    plain = tmp_path / "plain.yaml"
    plain.write_text("name: plain\ntemplate: 'a {}.'\nclasses:\n- {name: cat, synonyms: cat}\nbackground: [sky]\n")
    made = new_prompts(str(tmp_path / "mine"), str(plain))
    assert made.descriptions is None and load_prompts(made.classes).name == "mine" and not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("there", ["mine.yaml", "mine.json"])
def test_nothing_is_overwritten(there, links, tmp_path, monkeypatch):
    (tmp_path / there).write_text("work of an afternoon")
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    for case in ("as it is", "made meanwhile"):
        if case == "made meanwhile":  # after the check
            monkeypatch.setattr(os.path, "lexists", lambda path: False)
        with pytest.raises((SettingError, FileExistsError), match=f"{there}.* exists already|File exists"):
            new_prompts(str(tmp_path / "mine"), "world")
        assert [path.name for path in tmp_path.iterdir()] == [there]
        assert (tmp_path / there).read_text() == "work of an afternoon"


def test_a_disk_without_links_gets_the_files_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", _no_links)
    made = new_prompts(str(tmp_path / "mine"), "world")
    assert load_prompts(made.classes).name == "mine" and len(list(tmp_path.iterdir())) == 2


def _no_links(source, target):
    raise PermissionError("no links here")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("mine", "vco", "--from: there is no 'vco'; valid: coco, voc, world, or the path of a .yaml file"),
        ("away/mine", "voc", "there is no folder .*away; make it first"),
        ("a\nb", "voc", "a class file cannot have this name"),
        (".yaml", "voc", "a class file cannot have this name"),
    ],
)
def test_what_cannot_be_is_refused(name, source, message, tmp_path):
    with pytest.raises(SettingError, match=message):
        new_prompts(f"{tmp_path}/{name}", source)
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_is_refused_by_line(tmp_path):
    (tmp_path / "bad.yaml").write_text("name: bad\ntemplate: 'a {}.'\nclasses: []\nbackgrund: []\n")
    with pytest.raises(PromptError, match="bad.yaml:4"):
        new_prompts(str(tmp_path / "mine"), str(tmp_path / "bad.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]
