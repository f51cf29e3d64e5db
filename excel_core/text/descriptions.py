"""Descriptions on disk, excel-descriptions/1: JSON, read strictly; errors name file, line and field.

format            "excel-descriptions/1"
provenance        name → text; `provider` must be there
class_provenance  may be left out: class → name → text, e.g. the model that wrote the class's texts, and when
classes           class → list of at least n texts (form.py), no two the same but for case
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from excel_core.errors import PromptError
from excel_core.text.checked_yaml import compose_json, error_at, fields, items, mapping, new_text, read_text, text
from excel_core.text.description_form import FormCheck, form_problem
from excel_core.text.prompts import PromptSet

__all__ = ["Descriptions", "load_descriptions"]

FORMAT = "excel-descriptions/1"


@dataclass(frozen=True)
class Descriptions:
    """n descriptions a class, classes in the order of the prompt set, and where the texts come from: as a whole, and for
    classes that have more to say by themselves."""

    texts: dict[str, tuple[str, ...]]
    provenance: dict[str, str]
    class_provenance: dict[str, dict[str, str]] = field(default_factory=dict)

    def in_class_order(self, class_names: Sequence[str]) -> tuple[str, ...]:
        """The texts of the named classes, class by class; a class without descriptions adds none."""
        return tuple(text for name in class_names for text in self.texts.get(name, ()))

    def document(self) -> dict[str, Any]:
        """What the file holds, as plain data; `load_descriptions` reads it back."""
        whole = {"format": FORMAT, "provenance": self.provenance}
        by_class = {"class_provenance": self.class_provenance} if self.class_provenance else {}
        return whole | by_class | {"classes": {name: list(texts) for name, texts in self.texts.items()}}


def load_descriptions(path: Path, prompts: PromptSet, n: int | None, problem: FormCheck = form_problem) -> Descriptions:
    """The first n descriptions of every class of `prompts` (None: all); the texts beyond n are checked too.

    `problem` says what is wrong with a text, given what it must begin with. PromptError for the first thing that is.
    """
    if n is not None and n < 1:
        raise PromptError(f"n: descriptions a class must be at least 1, got {n}; ask for 1 or more")
    root = compose_json(path, read_text(path))
    found = fields(path, root, "file", ("format", "provenance", "classes"), optional=("class_provenance",))
    version = text(path, found["format"], "format")
    if version != FORMAT:
        raise error_at(
            path, found["format"], "format", f"must be {FORMAT!r}, got {version!r}", "convert the file to this format"
        )
    provenance = _texts_by_name(path, found["provenance"], "provenance")
    if "provider" not in provenance:
        raise error_at(path, found["provenance"], "provenance", "key 'provider' is missing", "add it")
    nodes = fields(path, found["classes"], "classes", prompts.class_names)
    texts = {}
    for name in prompts.class_names:
        prefix = prompts.description_prefix(name)
        texts[name] = _class_texts(path, nodes[name], f"classes.{name}", prefix, n or 1, problem)[:n]
    return Descriptions(texts, provenance, _by_class(path, found.get("class_provenance"), prompts.class_names))


def _class_texts(path: Path, node: Any, field: str, prefix: str, n: int, problem: FormCheck) -> tuple[str, ...]:
    """All texts of one class, each of the right form and none twice, at least n of them."""
    nodes = items(path, node, field)
    if len(nodes) < n:
        raise error_at(path, node, field, f"needs {n} descriptions, got {len(nodes)}", "add more or lower n")
    taken: dict[str, int] = {}
    texts: list[str] = []
    for i, item in enumerate(nodes):
        found = new_text(path, item, f"{field}[{i}]", taken)
        wrong = problem(found, prefix)
        if wrong is not None:
            raise error_at(path, item, f"{field}[{i}]", wrong, "rewrite it in this form")
        texts.append(found)
    return tuple(texts)


def _by_class(path: Path, node: Any, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    if node is None:
        return {}
    found = fields(path, node, "class_provenance", (), optional=names)
    return {name: _texts_by_name(path, inner, f"class_provenance.{name}") for name, inner in found.items()}


def _texts_by_name(path: Path, node: Any, field: str) -> dict[str, str]:
    return {key: text(path, inner, f"{field}.{key}") for key, inner in mapping(path, node, field).items()}
