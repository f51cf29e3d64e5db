"""The instruction for a language model: what is filled in, and which placeholder is refused on which line."""

import pytest

from excel_core.errors import PromptError
from excel_core.text.llm_descriptions import load_instruction
from excel_core.text.prompts import ClassPrompt, PromptSet
from tests.conftest import ROOT

PETS = PromptSet("pets", "a photo of a {}.", (ClassPrompt("cat", "cat"), ClassPrompt("mouse", "mouse", "no animal")), ("sky",))
WHOLE = "Write {n} of {class}{about}.\nNot: {others}.\nBegin `{beginning}…`; a set is {{x}}.\n"


def _path(folder, text):
    (folder / "mine.md").write_text(text)
    return folder / "mine.md"


def test_every_placeholder_is_filled(tmp_path):
    found = load_instruction(_path(tmp_path, WHOLE))
    cat, mouse = PETS.classes
    assert found.fill(PETS, cat, 7) == "Write 7 of cat.\nNot: mouse.\nBegin `a photo of a cat. it …`; a set is {x}.\n"
    assert found.fill(PETS, mouse, 7).startswith("Write 7 of mouse: no animal.\nNot: cat.\n")
    alone = PromptSet("one", PETS.template, (cat,), ())
    assert "Not: none." in found.fill(alone, cat, 1)


def test_the_bundled_one_says_the_class_the_number_and_the_beginning():
    request = load_instruction(ROOT / "prompts" / "describe.md").fill(PETS, PETS.classes[1], 20)
    assert request.startswith('Write 20 visual descriptions of the object class "mouse": no animal.')
    assert "`a photo of a mouse. it …`" in request and "{" not in request


def test_its_digest_follows_its_text(tmp_path):
    first = load_instruction(_path(tmp_path, WHOLE)).digest
    assert load_instruction(_path(tmp_path, WHOLE + "More.")).digest != first
    assert load_instruction(_path(tmp_path, WHOLE)).digest == first and len(first) == 16


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("{others}", "{other}", 2, "unknown {other}; the placeholders are: {class}, {n}, {beginning}, {about}, {others}"),
        ("{others}", "{}", 2, "unknown {}"),
        ("{others}", "{class.__init__}", 2, "unknown {class.__init__}"),
        ("{others}", "{class!r}", 2, "unknown {class!r}"),
        ("{n}", "{n:>3}", 1, "unknown {n:>3}"),
        ("{{x}}", "{{x}", 3, "from here on, single '}' encountered"),
        ("{others}", "{others", 2, "from here on, "),
        ("{n}", "some", 1, "{n} is missing"),
        ("{class}", "it", 1, "{class} is missing"),
        ("{beginning}", "so", 1, "{beginning} is missing"),
    ],
)
def test_a_wrong_placeholder_is_refused_with_its_line(tmp_path, old, new, line, says):
    path = _path(tmp_path, WHOLE.replace(old, new))
    with pytest.raises(PromptError) as caught:
        load_instruction(path)
    assert str(caught.value).startswith(f"{path}:") and says in str(caught.value)
    at = int(str(caught.value).removeprefix(f"{path}:").partition(":")[0])
    assert at <= line if says.startswith("from here on") else at == line


def test_an_unreadable_one_is_refused(tmp_path):
    with pytest.raises(PromptError, match=r"none\.md: cannot be read"):
        load_instruction(tmp_path / "none.md")
