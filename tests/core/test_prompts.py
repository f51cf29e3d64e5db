"""Prompt files: what ships is whole and well formed, and a broken file is refused with its line."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from excel_core.errors import PromptError
from excel_core.text.descriptions import load_descriptions
from excel_core.text.prompts import PromptSet, load_prompts

PROMPTS = Path(str(resources.files("prompts")))
VOC_JSON = PROMPTS / "descriptions" / "voc.json"
SMALL_YAML = """\
name: pets
template: "a clean origami {}."
classes:
  - {name: cat, synonyms: cat feline}
  - {name: dog, synonyms: dog}
background:
  - grass
  - sofa
"""
CLIP_TEXT_LENGTH = 77  # start and end tokens included
# What the published code puts into the template, in class order. Its spelling counts: `sknowboard` is what was encoded.
PUBLISHED_TEMPLATE = "a clean origami {}."
PUBLISHED_VOC = (
    "aeroplane · bicycle · bird avian · boat · bottle · bus · car · cat · chair seat · cow · diningtable · dog · horse · "
    "motorbike · person with clothes,people,human · pottedplant · sheep · sofa · train · tvmonitor screen"
)
PUBLISHED_COCO = (
    "person with clothes,people,human · bicycle · car · motorbike · aeroplane · bus · train · truck · boat · traffic "
    "light · fire hydrant · stop sign · parking meter · bench · bird avian · cat · dog · horse · sheep · cow · elephant · "
    "bear · zebra · giraffe · backpack,bag · umbrella,parasol · handbag,purse · necktie · suitcase · frisbee · skis · "
    "sknowboard · sports ball · kite · baseball bat · glove · skateboard · surfboard · tennis racket · bottle · wine "
    "glass · cup · fork · knife · dessertspoon · bowl · banana · apple · sandwich · orange · broccoli · carrot · hot dog "
    "· pizza · donut · cake · chair seat · sofa · pottedplant · bed · diningtable · toilet · tvmonitor screen · laptop · "
    "mouse · remote control · keyboard · cell phone · microwave · oven · toaster · sink · refrigerator · book · clock · "
    "vase · scissors · teddy bear · hairdrier,blowdrier · toothbrush"
)
PUBLISHED_VOC_BACKGROUND = (
    "ground land grass tree building wall sky lake water river sea railway railroad keyboard helmet cloud house "
    "mountain ocean road rock street valley bridge sign"
)
PUBLISHED_COCO_BACKGROUND = (
    "ground land grass tree building wall sky lake water river sea railway railroad helmet cloud house mountain "
    "ocean road rock street valley bridge"
)


@pytest.fixture
def voc() -> PromptSet:
    return load_prompts(PROMPTS / "voc.yaml")


@pytest.fixture
def pets(tmp_path: Path) -> PromptSet:
    path = tmp_path / "pets.yaml"
    path.write_text(SMALL_YAML)
    return load_prompts(path)


def pets_document() -> dict[str, Any]:
    return {
        "format": "excel-descriptions/1",
        "provenance": {"provider": "bundled"},
        "classes": {
            name: [f"a clean origami {name}. it has {part}." for part in ("fur", "a tail", "four paws")]
            for name in ("cat", "dog")
        },
    }


def write_json(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return path


def line_of(path: Path, needle: str) -> int:
    """The 1-based line of the only line that contains `needle`."""
    (line,) = [i for i, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1) if needle in text]
    return line


# What ships.


def test_voc_has_the_official_classes_and_the_published_prompts(voc: PromptSet) -> None:
    assert " ".join(voc.class_names) == (
        "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
        "person pottedplant sheep sofa train tvmonitor"
    )
    changed = {c.name: c.synonyms for c in voc.classes if c.synonyms != c.name}
    assert changed == {
        "bird": "bird avian",
        "chair": "chair seat",
        "person": "person with clothes,people,human",
        "tvmonitor": "tvmonitor screen",
    }
    assert voc.templates()[2] == "a clean origami bird avian."
    assert len(voc.templates()) == 20
    assert " ".join(voc.background) == (
        "ground land grass tree building wall sky lake water river sea railway railroad keyboard helmet "
        "cloud house mountain ocean road rock street valley bridge sign"
    )
    assert voc.background_templates()[0] == "a clean origami ground."


def test_coco_classes_stand_at_the_rank_of_their_category_id(voc: PromptSet) -> None:
    coco = load_prompts(PROMPTS / "coco.yaml")
    assert len(coco.classes) == 80
    # COCO's ids run from 1 to 90 without these ten, so a class's position follows from its id alone.
    unused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    position = {category: i for i, category in enumerate(k for k in range(1, 91) if k not in unused)}
    known = {
        1: "person",
        10: "traffic light",
        13: "stop sign",
        27: "backpack",
        31: "handbag",
        44: "bottle",
        46: "wine glass",
        62: "chair",
        67: "dining table",
        70: "toilet",
        72: "tv",
        84: "book",
        90: "toothbrush",
    }
    assert {k: coco.class_names[position[k]] for k in known} == known
    assert coco.background == tuple(text for text in voc.background if text not in ("keyboard", "sign"))
    assert len(coco.background) == 23


@pytest.mark.parametrize(
    ("name", "prompts", "background"),
    [("voc", PUBLISHED_VOC, PUBLISHED_VOC_BACKGROUND), ("coco", PUBLISHED_COCO, PUBLISHED_COCO_BACKGROUND)],
)
def test_templates_are_the_published_ones(name: str, prompts: str, background: str) -> None:
    found = load_prompts(PROMPTS / f"{name}.yaml")
    assert found.template == PUBLISHED_TEMPLATE
    texts = prompts.split(" · ")
    assert [c.synonyms for c in found.classes] == texts and len(texts) == {"voc": 20, "coco": 80}[name]
    assert " ".join(found.background) == background and len(found.background) == {"voc": 25, "coco": 23}[name]
    assert found.templates() == [f"a clean origami {text}." for text in texts]


def test_a_slip_of_the_published_prompts_stays_within_coco() -> None:
    classes = {c.name: c for c in load_prompts(PROMPTS / "coco.yaml").classes}
    assert (classes["snowboard"].synonyms, classes["snowboard"].plain_synonyms) == ("sknowboard", "snowboard")
    assert (classes["bird"].plain, classes["bird"].plain_synonyms) == ("", "bird avian")
    odd = {"sknowboard", "glove", "dessertspoon", "hairdrier,blowdrier"}
    assert not odd & {c.plain_synonyms for c in classes.values()} and odd <= {c.synonyms for c in classes.values()}


def test_every_voc_text_fits_clip(voc: PromptSet) -> None:
    tokenizer = pytest.importorskip("open_clip").SimpleTokenizer()
    texts = [text for of_class in load_descriptions(VOC_JSON, voc, 20).texts.values() for text in of_class]
    texts += voc.templates() + voc.background_templates()
    assert len(texts) == 400 + 20 + 25
    assert max(len(tokenizer.encode(text)) + 2 for text in texts) <= CLIP_TEXT_LENGTH


def test_the_provenance_of_voc_names_the_instruction(voc: PromptSet) -> None:
    provenance = load_descriptions(VOC_JSON, voc, 1).provenance
    assert PROMPTS.parent / provenance["instruction"] == PROMPTS / "describe.md"
    assert provenance["licence"] == "Apache-2.0"


def test_coco_says_which_thing_an_ambiguous_name_means() -> None:
    about = {c.name: c.about for c in load_prompts(PROMPTS / "coco.yaml").classes}
    assert about["mouse"] == "a computer mouse, not the animal" and about["zebra"] == ""
    assert all(about[name] for name in ("orange", "tie", "remote", "kite", "bear", "keyboard"))


# What is taken and what is refused.


def test_first_n_descriptions_in_the_order_of_the_prompt_set(tmp_path: Path, pets: PromptSet) -> None:
    document = pets_document()
    document["classes"] = dict(reversed(document["classes"].items()))
    got = load_descriptions(write_json(tmp_path / "d.json", document), pets, 2)
    assert list(got.texts) == ["cat", "dog"]
    assert got.texts["dog"] == ("a clean origami dog. it has fur.", "a clean origami dog. it has a tail.")
    assert got.provenance == {"provider": "bundled"}


def test_json_layout_does_not_matter(tmp_path: Path, pets: PromptSet) -> None:
    document = pets_document()
    document["classes"]["cat"][0] = 'a clean origami cat. it has a café\'s "fur" \\ and / or: {none}.'
    want = {name: tuple(texts) for name, texts in document["classes"].items()}
    for i, layout in enumerate(({"indent": "\t"}, {"separators": (",", ":")}, {"ensure_ascii": False})):
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(document, **layout), encoding="utf-8")  # type: ignore[arg-type]
        assert load_descriptions(path, pets, 3).texts == want


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        (
            "name: pets",
            "nome: pets",
            1,
            "unknown key 'nome'; the keys are: name, template, classes, background",
        ),
        ("synonyms: dog}", "synonyms: dog, about: 7}", 5, "classes[1].about: must be text, got int"),
        ("synonyms: dog}", "synonyms: dog, abut: pet}", 5, "unknown key 'abut'; the keys are: name, synonyms, about, plain"),
        ("synonyms: dog}", "synonyms: dog, plain: ''}", 5, "classes[1].plain: must be one line"),
        ("name: pets\n", "", 1, "key 'name' is missing"),
        ("{}.", "thing.", 2, "template: must hold '{}' exactly once"),
        ("{}.", "{} {class}.", 2, "template: must hold '{}' exactly once"),
        ("{name: dog, synonyms: dog}", "{name: dog}", 5, "classes[1]: key 'synonyms' is missing"),
        ("{name: dog, synonyms: dog}", "{name: Cat, synonyms: dog}", 5, "'Cat' is already on line 4"),
        (
            "{name: dog, synonyms: dog}",
            "{name: dog, name: dog, synonyms: dog}",
            5,
            "key 'name' is given twice",
        ),
        (
            "{name: dog, synonyms: dog}",
            "{name: no, synonyms: dog}",
            5,
            "classes[1].name: must be text, got bool",
        ),
        (
            "{name: dog, synonyms: dog}",
            "{name: dog, synonyms: ''}",
            5,
            "classes[1].synonyms: must be one line",
        ),
        ("{name: dog, synonyms: dog}", "dog", 5, "classes[1]: must be a mapping, got str"),
        ("  - grass", "  - 7", 7, "background[0]: must be text, got int"),
        ("  - sofa", "  - dog", 8, "background[1]: 'dog' is already on line 5"),
        ("synonyms: cat feline}", "synonyms: cat feline", 5, "not valid YAML"),
        (SMALL_YAML, "", 1, "must be a mapping, got nothing"),
    ],
)
def test_broken_class_set_is_refused_with_its_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    path = tmp_path / "broken.yaml"
    assert SMALL_YAML.count(old) == 1
    path.write_text(SMALL_YAML.replace(old, new))
    with pytest.raises(PromptError) as caught:
        load_prompts(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert says in str(caught.value)


def test_unreadable_file_is_a_prompt_error(tmp_path: Path, pets: PromptSet) -> None:
    with pytest.raises(PromptError, match=r"none\.json: cannot be read"):
        load_descriptions(tmp_path / "none.json", pets, 1)
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: pets\ntemplate: caf\xe9\n")
    with pytest.raises(PromptError, match=r"latin\.yaml:2: file: not UTF-8"):
        load_prompts(path)


def refusal(path: Path, prompts: PromptSet, n: int = 3) -> str:
    with pytest.raises(PromptError) as caught:
        load_descriptions(path, prompts, n)
    return str(caught.value)


def test_refuses_unknown_and_missing_keys_and_classes(tmp_path: Path, pets: PromptSet) -> None:
    path = tmp_path / "d.json"
    write_json(path, pets_document() | {"notes": "x"})
    assert f"{path}:{line_of(path, 'notes')}: file: unknown key 'notes'; the keys are: format" in refusal(path, pets)
    document = pets_document()
    document["classes"]["fox"] = []
    write_json(path, document)
    assert f"{path}:{line_of(path, 'fox')}: classes: unknown key 'fox'; the keys are: cat, dog" in refusal(path, pets)
    document = pets_document()
    del document["classes"]["dog"]
    write_json(path, document)
    assert f"{path}:{line_of(path, 'classes')}: classes: key 'dog' is missing" in refusal(path, pets)
    write_json(path, pets_document() | {"format": "excel-descriptions/2"})
    assert f"{path}:2: format: must be 'excel-descriptions/1'" in refusal(path, pets)
    write_json(path, pets_document() | {"provenance": {"author": "x"}})
    assert "provenance: key 'provider' is missing" in refusal(path, pets)


def test_refuses_too_few_and_says_how_many(tmp_path: Path, pets: PromptSet) -> None:
    path = write_json(tmp_path / "d.json", pets_document())
    assert f"{path}:{line_of(path, 'cat' + chr(34))}: classes.cat: needs 4 descriptions, got 3" in refusal(path, pets, 4)
    assert "at least 1, got 0" in refusal(path, pets, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a clean origami dog. it has fur.", "'a clean origami dog. it has fur.' is already on line"),
        ("a clean origami dog. it has FUR.", "is already on line"),
        ("a clean origami dog. it has Paws.", "must be 'a clean origami dog. it …' in lower case"),
        ("a clean origami cat. it has paws.", "must be 'a clean origami dog. it …' in lower case"),
        ("a dog has paws.", "must be 'a clean origami dog. it …' in lower case"),
        ("a clean origami dog. it ", "must be one line of printable text"),
        ("a clean origami dog. it has\npaws.", "must be one line of printable text"),
        (7, "must be text, got int"),
    ],
)
def test_refuses_a_bad_description_even_beyond_n(tmp_path: Path, pets: PromptSet, text: object, says: str) -> None:
    document = pets_document()
    document["classes"]["dog"][2] = text
    path = write_json(tmp_path / "d.json", document)
    line = line_of(path, '"dog"') + 3
    message = refusal(path, pets, 1)
    assert message.startswith(f"{path}:{line}: classes.dog[2]: ")
    assert says in message


def test_refuses_a_class_given_twice_and_a_torn_file(tmp_path: Path, pets: PromptSet) -> None:
    path = write_json(tmp_path / "d.json", pets_document())
    source = path.read_text()
    path.write_text(source.replace('"dog"', '"cat"'))
    second = next(i for i, text in enumerate(source.splitlines(), start=1) if '"dog"' in text)
    assert f"{path}:{second}: classes: key 'cat' is given twice" in refusal(path, pets)
    path.write_text("\n".join(source.splitlines()[:6]))
    assert f"{path}:6: file: not valid JSON" in refusal(path, pets)
