"""Prompts as data: a class set in YAML, its descriptions in JSON, read strictly; errors name file and line.

A class has a `name` (labels, stores, descriptions) and `synonyms`, the text that stands for it in the
template: "a clean origami {}." with "bird avian" → "a clean origami bird avian." (ExCEL's t_c).
A description starts with the template filled with the *name*: "a clean origami bird. it has …".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml  # type: ignore[import-untyped, unused-ignore]  # typed only where types-PyYAML is installed

from .errors import PromptError

__all__ = [
    "BundledProvider",
    "ClassPrompt",
    "DescriptionProvider",
    "Descriptions",
    "PromptSet",
    "load_descriptions",
    "load_prompts",
]

DESCRIPTIONS_FORMAT = "excel-descriptions/1"


@dataclass(frozen=True)
class ClassPrompt:
    """One class: the name used everywhere, and the text that stands for it in the template."""

    name: str
    synonyms: str


@dataclass(frozen=True)
class PromptSet:
    """A class set. The order of `classes` is that of every class axis; mask value = position + 1."""

    name: str
    template: str  # holds "{}" exactly once
    classes: tuple[ClassPrompt, ...]
    background: tuple[str, ...]  # never enriched, appended after the classes

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    def templates(self) -> list[str]:
        """C texts, one a class, filled with its synonyms."""
        return [self.template.format(c.synonyms) for c in self.classes]

    def background_templates(self) -> list[str]:
        """One text a background prompt."""
        return [self.template.format(text) for text in self.background]

    def description_prefix(self, class_name: str) -> str:
        """What each description of the class begins with: "a clean origami bird. it "."""
        return f"{self.template.format(class_name)} it ".lower()


@dataclass(frozen=True)
class Descriptions:
    """n descriptions a class, classes in the order of the prompt set, and where the texts come from."""

    texts: dict[str, tuple[str, ...]]
    provenance: dict[str, str]


class DescriptionProvider(Protocol):
    """Anything that can give n descriptions for every class of a prompt set."""

    def describe(self, prompts: PromptSet, n: int) -> Descriptions: ...


@dataclass(frozen=True)
class BundledProvider:
    """Descriptions from a JSON file, such as prompts/descriptions/voc.json. Needs no network."""

    path: Path

    def describe(self, prompts: PromptSet, n: int) -> Descriptions:
        return load_descriptions(self.path, prompts, n)


def load_prompts(path: Path) -> PromptSet:
    """Read a class set: name, template, classes (list of {name, synonyms}), background (list of texts)."""
    root = _compose(path, _read(path))
    fields = _fields(path, root, "file", ("name", "template", "classes", "background"))
    template = _text(path, fields["template"], "template")
    if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        problem = f"must hold '{{}}' exactly once and no other brace, got {template!r}"
        raise _error(path, fields["template"], "template", problem, "put '{}' where the class goes")
    taken: dict[str, int] = {}
    classes: list[ClassPrompt] = []
    for i, node in enumerate(_items(path, fields["classes"], "classes")):
        field = f"classes[{i}]"
        parts = _fields(path, node, field, ("name", "synonyms"))
        name = _new_text(path, parts["name"], f"{field}.name", taken)
        classes.append(ClassPrompt(name, _text(path, parts["synonyms"], f"{field}.synonyms")))
    # Background shares `taken`: a background prompt that is also a class would compete for its pixels.
    nodes = _items(path, fields["background"], "background")
    background = tuple(_new_text(path, node, f"background[{i}]", taken) for i, node in enumerate(nodes))
    return PromptSet(_text(path, fields["name"], "name"), template, tuple(classes), background)


def load_descriptions(path: Path, prompts: PromptSet, n: int) -> Descriptions:
    """The first n descriptions of every class of `prompts`; the texts beyond n are checked too."""
    if n < 1:
        raise PromptError(f"n: descriptions a class must be at least 1, got {n}; ask for 1 or more")
    source = _read(path)
    try:
        json.loads(source)
    except json.JSONDecodeError as error:
        raise _error(path, error.lineno, "file", f"not valid JSON: {error.msg}", "correct it") from error
    # JSON is YAML but for tabs between tokens, and YAML nodes know their line.
    root = _compose(path, source.replace("\t", " "))
    fields = _fields(path, root, "file", ("format", "provenance", "classes"))
    version = _text(path, fields["format"], "format")
    if version != DESCRIPTIONS_FORMAT:
        problem = f"must be {DESCRIPTIONS_FORMAT!r}, got {version!r}"
        raise _error(path, fields["format"], "format", problem, "convert the file to this format")
    provenance = {
        key: _text(path, node, f"provenance.{key}") for key, node in _mapping(path, fields["provenance"], "provenance").items()
    }
    if "provider" not in provenance:
        raise _error(path, fields["provenance"], "provenance", "key 'provider' is missing", "add it")
    nodes = _fields(path, fields["classes"], "classes", prompts.class_names)
    texts = {
        name: _class_texts(path, nodes[name], name, prompts.description_prefix(name), n)[:n] for name in prompts.class_names
    }
    return Descriptions(texts, provenance)


def _class_texts(path: Path, node: Any, name: str, prefix: str, n: int) -> tuple[str, ...]:
    """All texts of one class, each of the right form and none twice, at least n of them."""
    field = f"classes.{name}"
    nodes = _items(path, node, field)
    if len(nodes) < n:
        raise _error(path, node, field, f"needs {n} descriptions, got {len(nodes)}", "add more or lower n")
    taken: dict[str, int] = {}
    texts: list[str] = []
    for i, item in enumerate(nodes):
        text = _new_text(path, item, f"{field}[{i}]", taken)
        if not text.startswith(prefix) or text != text.lower():
            problem = f"must be '{prefix}…' in lower case, got {text!r}"
            raise _error(path, item, f"{field}[{i}]", problem, "rewrite it in this form")
        texts.append(text)
    return tuple(texts)


# The parser: YAML nodes in, checked values out. `field` is what the error calls the node.


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise PromptError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _error(path, line, "file", "not UTF-8", "save it as UTF-8") from error


def _compose(path: Path, source: str) -> Any:
    try:
        return yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _error(path, line, "file", f"not valid YAML: {error.problem}", "correct this line") from error
    except yaml.reader.ReaderError as error:
        line = source.count("\n", 0, error.position) + 1
        raise _error(path, line, "file", f"not valid YAML: {error.reason}", "remove the character") from error


def _mapping(path: Path, node: Any, field: str) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _error(path, node, field, f"must be a mapping, got {_kind(node)}", "write key-value pairs")
    found: dict[str, Any] = {}
    for key_node, value in node.value:
        key = _text(path, key_node, f"a key of {field}")
        if key in found:  # a plain loader would keep the last one without a word
            raise _error(path, key_node, field, f"key {key!r} is given twice", "merge the two")
        found[key] = value
    return found


def _fields(path: Path, node: Any, field: str, keys: Sequence[str]) -> dict[str, Any]:
    """The value nodes of a mapping that must have exactly these keys."""
    found = _mapping(path, node, field)
    step = f"the keys are: {', '.join(keys)}"
    for key_node, _ in node.value:
        if key_node.value not in keys:
            raise _error(path, key_node, field, f"unknown key {key_node.value!r}", step)
    for key in keys:
        if key not in found:
            raise _error(path, node, field, f"key {key!r} is missing", step)
    return found


def _items(path: Path, node: Any, field: str) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise _error(path, node, field, f"must be a list with entries, got {_kind(node)}", "write a list")
    return list(node.value)


def _text(path: Path, node: Any, field: str) -> str:
    """One line of text. The tag tells text from what YAML takes for a number, a boolean or null."""
    if _kind(node) != "str":
        raise _error(path, node, field, f"must be text, got {_kind(node)}", "write a text, in quotes")
    text = str(node.value)
    if not text or text != text.strip() or not text.isprintable():
        problem = f"must be one line of printable text without space at its ends, got {text!r}"
        raise _error(path, node, field, problem, "rewrite it")
    return text


def _new_text(path: Path, node: Any, field: str, taken: dict[str, int]) -> str:
    """A text that, but for case, is not in `taken` (text → line) yet; adds it."""
    text = _text(path, node, field)
    if text.casefold() in taken:
        problem = f"{text!r} is already on line {taken[text.casefold()]}"
        raise _error(path, node, field, problem, "replace one of the two")
    taken[text.casefold()] = _line(node)
    return text


def _kind(node: Any) -> str:
    """str, int, bool, null, seq, map, …; an empty file has no node."""
    return "nothing" if node is None else str(node.tag).rpartition(":")[2]


def _line(node: Any) -> int:
    return 1 if node is None else int(node.start_mark.line) + 1


def _error(path: Path, at: Any, field: str, problem: str, next_step: str) -> PromptError:
    """`at` is a node or a line counted from 1."""
    line = at if isinstance(at, int) else _line(at)
    return PromptError(f"{path}:{line}: {field}: {problem}; {next_step}")
