"""Descriptions on disk, excel-descriptions/1, and the form of a description. Errors name file, line and field.

format            "excel-descriptions/1"
provenance        name → text; `provider` must be there
class_provenance  may be left out: class → name → text, e.g. the model that wrote the class's texts, and when
classes           class → list of at least n texts, no two the same but for case

The checks of the form say both why a file is refused and what a language model is told to repair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from excel_core.errors import PromptError
from excel_core.text.checked_yaml import compose_json, error_at, fields, items, mapping, read_text, text, unique_text
from excel_core.text.prompts import PromptSet

__all__ = [
    "CLIP_SPECIAL_TOKENS", "DESCRIPTIONS_FORMAT", "MAX_CLIP_TOKENS", "Descriptions", "FormCheck", "description_problem",
    "form_problem", "length_problem", "load_descriptions",
]  # fmt: skip

DESCRIPTIONS_FORMAT = "excel-descriptions/1"
MAX_CLIP_TOKENS = 77  # start and end tokens included; CLIP cuts off the rest without a word
CLIP_SPECIAL_TOKENS = ("<|startoftext|>", "<|endoftext|>")  # the tokenizer takes these words for the tokens themselves
MAX_QUOTED_CHARACTERS = 60  # of a text in an error
FormCheck = Callable[[str, str], str | None]  # text, what it must begin with → what is wrong with it


@dataclass(frozen=True)
class Descriptions:
    """n descriptions of each class, classes in the order of the prompt set; where the texts come from as a whole, and what is
    known beyond that of single classes."""

    texts: dict[str, tuple[str, ...]]
    provenance: dict[str, str]
    class_provenance: dict[str, dict[str, str]] = field(default_factory=dict)

    def in_class_order(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """The texts of the named classes, class by class; a class without descriptions adds none."""
        return tuple(text for name in class_names for text in self.texts.get(name, ()))

    def document(self) -> dict[str, Any]:
        """The content of the file as plain data; `load_descriptions` reads it back."""
        header = {"format": DESCRIPTIONS_FORMAT, "provenance": self.provenance}
        by_class = {"class_provenance": self.class_provenance} if self.class_provenance else {}
        return header | by_class | {"classes": {name: list(texts) for name, texts in self.texts.items()}}


def form_problem(text: str, prefix: str) -> str | None:
    """What keeps `text` from being a description that begins with `prefix`, or None. A description is one line of printable
    text in lower case, with more after the beginning."""
    if not text or text != text.strip() or not text.isprintable():
        return f"must be one line of printable text without space at its ends, got {text!r}"
    if not text.startswith(prefix) or text != text.lower():
        return f"must be '{prefix}…' in lower case, got {text!r}"
    return None


def length_problem(text: str) -> str | None:
    """What CLIP would cut off, or None."""
    count = len(_tokenizer().encode(text)) + 2  # start and end token
    if count <= MAX_CLIP_TOKENS:
        return None
    quoted = repr(text[:MAX_QUOTED_CHARACTERS]) + "…" * (len(text) > MAX_QUOTED_CHARACTERS)
    return f"is {count} of CLIP's tokens long, at most {MAX_CLIP_TOKENS} fit: {quoted}"


def description_problem(text: str, prefix: str) -> str | None:
    """The first problem of form or length, or None."""
    return form_problem(text, prefix) or length_problem(text)


@cache
def _tokenizer():  # type: ignore[no-untyped-def]
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()


def load_descriptions(path: Path, prompts: PromptSet, n: int | None, problem: FormCheck = form_problem) -> Descriptions:
    """The first n descriptions of every class of `prompts` (None: all). The texts beyond n are checked too.

    `problem` says what is wrong with a text, or None. PromptError for the first thing that is wrong.
    """
    if n is not None and n < 1:
        raise PromptError(f"n: descriptions per class must be at least 1, got {n}; ask for 1 or more")
    root = compose_json(path, read_text(path))
    nodes_of_file = fields(path, root, "file", ("format", "provenance", "classes"), optional=("class_provenance",))
    version = text(path, nodes_of_file["format"], "format")
    if version != DESCRIPTIONS_FORMAT:
        wrong = f"must be {DESCRIPTIONS_FORMAT!r}, got {version!r}"
        raise error_at(path, nodes_of_file["format"], "format", wrong, "convert the file to this format")
    provenance = _texts_by_name(path, nodes_of_file["provenance"], "provenance")
    if "provider" not in provenance:
        raise error_at(path, nodes_of_file["provenance"], "provenance", "key 'provider' is missing", "add it")
    nodes = fields(path, nodes_of_file["classes"], "classes", prompts.class_names)
    texts = {}
    for name in prompts.class_names:
        prefix = prompts.description_prefix(name)
        texts[name] = _class_texts(path, nodes[name], f"classes.{name}", prefix, n or 1, problem)[:n]
    return Descriptions(texts, provenance, _by_class(path, nodes_of_file.get("class_provenance"), prompts.class_names))


def _class_texts(path: Path, node: Any, field: str, prefix: str, n: int, problem: FormCheck) -> tuple[str, ...]:
    """All texts of one class, at least n, each of the right form and none twice."""
    nodes = items(path, node, field)
    if len(nodes) < n:
        raise error_at(path, node, field, f"needs {n} descriptions, got {len(nodes)}", "add more or lower n")
    line_of_text: dict[str, int] = {}
    texts: list[str] = []
    for i, item in enumerate(nodes):
        description = unique_text(path, item, f"{field}[{i}]", line_of_text)
        wrong = problem(description, prefix)
        if wrong is not None:
            raise error_at(path, item, f"{field}[{i}]", wrong, "rewrite it in this form")
        texts.append(description)
    return tuple(texts)


def _by_class(path: Path, node: Any, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    if node is None:
        return {}
    nodes = fields(path, node, "class_provenance", (), optional=names)
    return {name: _texts_by_name(path, inner, f"class_provenance.{name}") for name, inner in nodes.items()}


def _texts_by_name(path: Path, node: Any, field: str) -> dict[str, str]:
    return {key: text(path, inner, f"{field}.{key}") for key, inner in mapping(path, node, field).items()}
