"""Descriptions that someone else wrote: the authors' form and excel's, the classes they stand for, and what is refused."""

import json

import pytest

from excel_core.errors import PromptError
from excel_core.text.prompts import ClassPrompt, PromptSet, load_prompts
from excel_core.text.user_descriptions import load_user_descriptions
from tests.conftest import PUBLISHED, ROOT, needs_published

# The classes of COCO that the authors' file calls otherwise than COCO does.
RENAMED = {
    "motorcycle": "motorbike", "airplane": "aeroplane", "couch": "sofa", "potted plant": "pottedplant",
    "dining table": "diningtable", "tv": "tvmonitor",
}  # fmt: skip


def class_set(**synonyms):
    return PromptSet("mine", "a clean origami {}.", tuple(ClassPrompt(*pair) for pair in synonyms.items()), ("sky",))


PETS = class_set(cat="cat feline", dog="dog")


@pytest.fixture
def write(tmp_path):
    def write(value):
        path = tmp_path / "given.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value, indent=4), encoding="utf-8")
        return path

    return write


def authors(names=("cat", "dog"), count=3):
    """A file as the authors have it: their sentences come in any case and form."""
    return {name: [f"a clean origami {name}. It's number {i}." for i in range(count)] for name in names}


def test_the_authors_form(write):
    path = write(authors() | {"dog": ["A dog\nbarks. ", "A dog\nbarks. ", "Dogs, especially OLD ones, sleep."]})
    found = load_user_descriptions(path).select(PETS, 2)
    assert found.texts["cat"] == ("a clean origami cat. it's number 0.", "a clean origami cat. it's number 1.")
    assert found.texts["dog"] == ("a dog\nbarks. ", "a dog\nbarks. ")  # lower-cased, of any form, twice
    assert found.provenance == {"provider": "file", "file": "given.json"}


def test_excels_own_form_keeps_where_the_texts_come_from(write):
    whole = {"format": "excel-descriptions/1", "provenance": {"provider": "openai", "server": "here"}, "classes": authors()}
    found = load_user_descriptions(write(whole | {"class_provenance": {"dog": {"model": "m"}}})).select(PETS, 3)
    assert found.provenance == {"provider": "openai", "server": "here", "file": "given.json"}
    assert found.class_provenance == {"dog": {"model": "m"}} and found.texts["dog"][2] == "a clean origami dog. it's number 2."


def test_as_many_of_each_class_where_no_number_is_asked_for(write):
    found = load_user_descriptions(write(authors() | authors(["dog"], 2))).select(PETS)
    assert {name: len(texts) for name, texts in found.texts.items()} == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("key", "name", "synonyms"),
    [
        ("Potted_Plant", "pottedplant", "x"),
        ("pottedplant", "potted plant", "x"),
        ("sofa", "couch", "sofa"),
        ("tvmonitor", "tv", "tvmonitor screen"),
        ("blow drier", "hair drier", "hairdrier,blowdrier"),
    ],
)
def test_a_class_by_another_spelling_or_by_its_prompt(write, key, name, synonyms):
    prompts = class_set(**{name: synonyms, "dog": "dog"})
    assert load_user_descriptions(write(authors([key, "dog"]))).keys(prompts) == {name: key, "dog": "dog"}


@pytest.mark.parametrize(("key", "name", "synonyms"), [("hot", "hot dog", "hot dog"), ("bird", "hawk", "hawk bird")])
def test_a_part_of_a_name_is_another_class(write, key, name, synonyms):
    assert load_user_descriptions(write(authors([key]))).keys(class_set(**{name: synonyms})) == {}


def test_a_name_goes_before_a_prompt(write):
    """`sofa` is class sofa's, not that of the couch whose prompt it is."""
    prompts = class_set(couch="sofa", sofa="sofa settee")
    assert load_user_descriptions(write(authors(["sofa", "couch"]))).keys(prompts) == {"couch": "couch", "sofa": "sofa"}
    with pytest.raises(PromptError, match=r"no descriptions of 'couch'; add"):
        load_user_descriptions(write(authors(["sofa"]))).select(prompts, 1)


LONG = "a clean origami dog. it has " + "very " * 80 + "long ears." + " and a tail" * 4000


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (authors(["cat", "hound"]), "no descriptions of 'dog'; its other classes: 'hound'; add them"),
        (authors(["cat"]) | authors(["dog"], 2), "class 'dog' has 2 descriptions, describe.n=3 are needed; add more or lower"),
        (authors(["cat", "Dog", "DOG"]), "'Dog' and 'DOG' both fit class 'dog'; leave one out"),
        (authors() | {"dog": ["a", LONG]}, "class 'dog'[1]: is 12092 of CLIP's tokens long, at most 77 fit"),
        (authors() | {"dog": ["a", "  "]}, "class 'dog'[1]: is empty"),
        (authors() | {"dog": ["a", 7]}, "class 'dog'[1]: must be text, got int"),
        (authors() | {"dog": "a dog"}, "class 'dog': must be a list of texts"),
        (authors() | {"dog": []}, "class 'dog': must be a list of texts, got []"),
        ('{"cat": ["\\ud83d"]}', "class 'cat'[0]: holds half of a character"),
        ('{"cat": ["a"],\n "cat": ["b"]}', "key 'cat' is given twice"),
        ('{"cat": ["a"],\n "dog": ["b"', "given.json:2: file: not valid JSON"),
        ("[" * 100_000, "not valid JSON: nested too deeply"),
        ('{"dog": ' + "9" * 5000 + "}", "not valid JSON: a number too long to read"),
        (authors() | {"dog": ["a", "a dog <|EndOfText|> with fur"]}, "class 'dog'[1]: holds <|startoftext|> or <|endoftext|>"),
        ("[1]", "file: must be an object, got list"),
        ("{}", "holds no class"),
        ({"format": "excel-descriptions/2", "classes": authors()}, "format: must be 'excel-descriptions/1'"),
        ({"format": "excel-descriptions/1"}, "classes: must be an object, got NoneType"),
        ({"format": "excel-descriptions/1", "provenance": {"n": 7}, "classes": authors()}, "provenance.n: must be text"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_line(write, value, says):
    with pytest.raises(PromptError) as caught:
        load_user_descriptions(write(value)).select(PETS, 3)
    message = str(caught.value)
    assert says in message and "given.json" in message and "\n" not in message and len(message) < 500


def test_a_file_may_begin_as_windows_editors_have_it(tmp_path):
    (tmp_path / "given.json").write_text(json.dumps(authors()), encoding="utf-8-sig")
    assert load_user_descriptions(tmp_path / "given.json").keys(PETS) == {"cat": "cat", "dog": "dog"}


def test_classes_that_differ_between_coco_and_the_authors(write):
    """What the authors call COCO's classes, without their file."""
    coco = load_prompts(ROOT / "prompts" / "coco.yaml")
    names = [RENAMED.get(name, name) for name in coco.class_names]
    found = load_user_descriptions(write(authors(names, 1)))
    assert found.keys(coco) == dict(zip(coco.class_names, names, strict=True))
    assert found.select(coco, 1).texts["tv"] == ("a clean origami tvmonitor. it's number 0.",)


@needs_published
def test_the_authors_own_files():
    _check_file("voc", "pascal_voc")
    _check_file("coco", "ms_coco")


def _check_file(name, file):
    path = PUBLISHED / f"descriptors_{file}_gpt4.0_cluster_a_photo_of4.json"
    prompts, given = load_prompts(ROOT / "prompts" / f"{name}.yaml"), json.loads(path.read_text())
    found = load_user_descriptions(path).select(prompts, 20)
    assert list(found.texts) == list(prompts.class_names)
    for (of_class, texts), (key, theirs) in zip(found.texts.items(), given.items(), strict=True):
        assert key == (RENAMED if name == "coco" else {}).get(of_class, of_class)  # both are in COCO's or VOC's order
        assert texts == tuple(text.lower() for text in theirs) and len(texts) == 20
