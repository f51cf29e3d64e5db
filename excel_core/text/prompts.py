"""Prompts as data: a class set in YAML, read strictly; errors name file and line.

A class has a `name` (labels, stores, descriptions) and `synonyms`, the text that stands for it in the
template: "a clean origami {}." with "bird avian" → "a clean origami bird avian." (ExCEL's t_c).
`plain`, where it is given, is the same in plain words, for classes known by name alone: published synonyms may be misspelt.
`about`, where it is given, says which thing a name means to whoever writes descriptions: "a computer mouse, not the animal".
A description starts with the template filled with the *name*: "a clean origami bird. it has …" (descriptions/).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.class_names import canonical_name, class_names_problem, name_key
from excel_core.errors import SettingError
from excel_core.text.checked_yaml import compose_yaml, error_at, fields, items, read_text, text, unique_text

__all__ = ["ClassPrompt", "PromptSet", "class_indices", "load_prompts"]

Check = Callable[[str], str | None]  # filled template → what is wrong with it


@dataclass(frozen=True)
class ClassPrompt:
    """One class: the name used everywhere, the text that stands for it in the template, which thing it is, and that text in
    plain words where `synonyms` is misspelt."""

    name: str
    synonyms: str
    about: str = ""
    plain: str = ""

    @property
    def plain_synonyms(self) -> str:
        """What stands for the class outside its data set."""
        return self.plain or self.synonyms


@dataclass(frozen=True)
class PromptSet:
    """A class set. The order of `classes` is that of every class axis; mask value = position + 1."""

    name: str
    template: str  # holds "{}" exactly once
    classes: tuple[ClassPrompt, ...]
    background: tuple[str, ...]  # never enriched, appended after the classes

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PromptSet":
        """The class set whose `dataclasses.asdict` is `values`, perhaps by way of JSON."""
        classes = tuple(ClassPrompt(**entry) for entry in values["classes"])
        return cls(values["name"], values["template"], classes, tuple(values["background"]))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names, in class order."""
        return tuple(c.name for c in self.classes)

    def templates(self) -> list[str]:
        """C texts: the template filled with the synonyms of each class."""
        return [self.template.format(c.synonyms) for c in self.classes]

    def background_templates(self) -> list[str]:
        """Z texts: the template filled with each background prompt."""
        return [self.template.format(text) for text in self.background]

    def description_prefix(self, class_name: str) -> str:
        """What each description of the class begins with: "a clean origami bird. it "; underscores are spaces in it."""
        return f"{self.template.format(class_name.replace('_', ' '))} it ".lower()


def class_indices(names: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Indices of `names` among `class_names`, each once and in class order; upper and lower case are the same, and
    so are ways to compose an accent. SettingError for another name."""
    index_of = {name_key(name): index for index, name in enumerate(class_names)}
    unknown = [name for name in names if name_key(name) not in index_of]
    if unknown:
        raise SettingError(f"unknown class {unknown[0]!r}; the classes are: {', '.join(class_names)}")
    return tuple(sorted({index_of[name_key(name)] for name in names}))


def load_prompts(path: Path, problem: Check = lambda filled: None) -> PromptSet:
    """Read a class set: name, template, classes (list of {name, synonyms, about?, plain?}), background (list of texts).

    `problem` may say what is wrong with a filled template. PromptError for the first thing that is.
    """
    root = compose_yaml(path, read_text(path))
    nodes = fields(path, root, "file", ("name", "template", "classes", "background"))
    template = text(path, nodes["template"], "template")
    if template.count("{}") != 1 or template.count("{") + template.count("}") != 2:
        wrong = f"must hold '{{}}' exactly once and no other brace, got {template!r}"
        raise error_at(path, nodes["template"], "template", wrong, "put '{}' where the class goes")
    line_of_text: dict[str, int] = {}
    classes: list[ClassPrompt] = []
    for i, node in enumerate(items(path, nodes["classes"], "classes")):
        classes.append(_class_prompt(path, node, f"classes[{i}]", line_of_text))
        _check_names(path, node, f"classes[{i}].name", [prompt.name for prompt in classes])
        for words in {classes[-1].synonyms, classes[-1].plain_synonyms}:
            _check_filled(path, node, f"classes[{i}]", problem(template.format(words)))
    # Background shares `line_of_text`: a background prompt that is also a class would compete for its pixels.
    background: list[str] = []
    for i, node in enumerate(items(path, nodes["background"], "background")):
        background.append(unique_text(path, node, f"background[{i}]", line_of_text))
        _check_filled(path, node, f"background[{i}]", problem(template.format(background[-1])))
    return PromptSet(text(path, nodes["name"], "name"), template, tuple(classes), tuple(background))


def _class_prompt(path: Path, node: Any, field: str, taken: dict[str, int]) -> ClassPrompt:
    nodes = fields(path, node, field, ("name", "synonyms"), optional=("about", "plain"))
    name = unique_text(path, nodes["name"], f"{field}.name", taken)
    optional = {key: text(path, nodes[key], f"{field}.{key}") for key in ("about", "plain") if key in nodes}
    return ClassPrompt(canonical_name(name), text(path, nodes["synonyms"], f"{field}.synonyms"), **optional)


def _check_names(path: Path, node: Any, field: str, names: Sequence[str]) -> None:
    problem = class_names_problem(names)
    if problem is not None:
        wrong, _, advice = problem.rpartition("; ")
        raise error_at(path, node, field, wrong, advice)


def _check_filled(path: Path, node: Any, field: str, wrong: str | None) -> None:
    if wrong is not None:
        raise error_at(path, node, field, wrong, "shorten it")
