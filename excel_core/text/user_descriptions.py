"""Descriptions that a user brings: the authors' JSON, {class: [text, …]}, or excel's own excel-descriptions/1.

Texts are lower-cased, as the published code does before it encodes them. They may have any form, as long as CLIP reads each
of them whole. A key of the file belongs to a class by the class's name or by its prompt: the authors write `tvmonitor` where
COCO has `tv`.
"""

import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from excel_core.errors import PromptError, and_more
from excel_core.text.checked_yaml import error_at, read_text
from excel_core.text.descriptions import CLIP_SPECIAL_TOKENS, DESCRIPTIONS_FORMAT, Descriptions, length_problem
from excel_core.text.prompts import ClassPrompt, PromptSet

__all__ = ["UserDescriptions", "load_user_descriptions"]

Object = dict[str, Any]
MAX_NAMES = 5  # of classes, in an error


@dataclass(frozen=True)
class UserDescriptions:
    """A whole file: class as the file spells it → its texts, lower-cased; and where they come from, where the file says it."""

    path: Path
    texts: dict[str, tuple[str, ...]]
    provenance: dict[str, str]
    class_provenance: dict[str, dict[str, str]] = field(default_factory=dict)

    def keys(self, prompts: PromptSet) -> dict[str, str]:
        """Class name → the file's key for it, of the classes that the file has. PromptError where two keys match a class
        equally well."""
        key_of: dict[str, str] = {}
        for matches in (_same_name, _same_letters, _same_prompt):
            for prompt in prompts.classes:
                if prompt.name in key_of:
                    continue
                keys = [key for key in self.texts if key not in key_of.values() and matches(key, prompt)]
                if len(keys) > 1:
                    raise PromptError(
                        f"{self.path}: {' and '.join(map(repr, keys))} both fit class {prompt.name!r}; leave one out"
                    )
                if keys:
                    key_of[prompt.name] = keys[0]
        return key_of

    def select(self, prompts: PromptSet, n: int | None = None) -> Descriptions:
        """The first n texts of every class of `prompts`; None: as many of each as the class with fewest has. PromptError names
        a class that is missing or has fewer."""
        keys = self.keys(prompts)
        missing = [name for name in prompts.class_names if name not in keys]
        if missing:
            unused = [repr(key) for key in self.texts if key not in keys.values()]
            other_classes = f"; its other classes: {and_more(unused, MAX_NAMES)}" if unused else ""
            names = and_more([repr(name) for name in missing], MAX_NAMES)
            raise PromptError(f"{self.path}: no descriptions of {names}{other_classes}; add them under that name")
        count = min(len(self.texts[key]) for key in keys.values()) if n is None else n
        for key in keys.values():
            if len(self.texts[key]) < count:
                few = f"class {key!r} has {len(self.texts[key])} descriptions, describe.n={count} are needed"
                raise PromptError(f"{self.path}: {few}; add more or lower describe.n")
        return Descriptions(
            {name: self.texts[keys[name]][:count] for name in prompts.class_names},
            self.provenance,
            {name: self.class_provenance[keys[name]] for name in prompts.class_names if keys[name] in self.class_provenance},
        )


def load_user_descriptions(path: Path) -> UserDescriptions:
    """Read a file of either form, every text of it. PromptError names the file, and class and index (from 0) of a bad text."""
    root = _parsed(path)
    provenance, by_class, classes = {"provider": "file"}, {}, root
    if isinstance(root.get("format"), str):
        if root["format"] != DESCRIPTIONS_FORMAT:
            wrong = f"must be {DESCRIPTIONS_FORMAT!r}, got {root['format']!r}"
            raise PromptError(f"{path}: format: {wrong}; give a file of this format")
        provenance |= _texts(path, "provenance", root.get("provenance", {}))
        sources = _object(path, "class_provenance", root.get("class_provenance", {}))
        by_class = {name: _texts(path, f"class_provenance.{name}", value) for name, value in sources.items()}
        classes = _object(path, "classes", root.get("classes"))
    if not classes:
        raise PromptError(f"{path}: holds no class; write {{class: [text, …]}}")
    texts = {name: _class_texts(path, name, value) for name, value in classes.items()}
    return UserDescriptions(path, texts, provenance | {"file": path.name}, by_class)


def _parsed(path: Path) -> Object:
    """The file's object, no key of any object twice."""
    twice: list[str] = []

    def as_object(members: list[tuple[str, Any]]) -> Object:
        names = [unicodedata.normalize("NFC", name) for name, _ in members]
        twice.extend(name for name in names if names.count(name) > 1)
        return dict(zip(names, (value for _, value in members), strict=True))

    try:
        root = json.loads(read_text(path), object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        raise error_at(path, error.lineno, "file", f"not valid JSON: {error.msg}", "correct it") from None
    except ValueError:  # of numbers alone, past some thousand digits
        raise PromptError(f"{path}: not valid JSON: a number too long to read; write {{class: [text, …]}}") from None
    except RecursionError:
        raise PromptError(f"{path}: not valid JSON: nested too deeply; write {{class: [text, …]}}") from None
    if twice:
        raise PromptError(f"{path}: key {twice[0]!r} is given twice; merge the two")
    return _object(path, "file", root)


def _object(path: Path, field: str, value: Any) -> Object:
    if not isinstance(value, dict):
        raise PromptError(f"{path}: {field}: must be an object, got {type(value).__name__}; write {{name: value, …}}")
    return value


def _texts(path: Path, field: str, value: Any) -> dict[str, str]:
    """An object of texts: name → text."""
    members = _object(path, field, value)
    for name, inner in members.items():
        if not isinstance(inner, str):
            raise PromptError(f"{path}: {field}.{name}: must be text, got {type(inner).__name__}; write it in quotes")
    return members


def _class_texts(path: Path, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise PromptError(f"{path}: class {name!r}: must be a list of texts, got {json.dumps(value)[:40]}; write [text, …]")
    for i, text in enumerate(value):
        problem = _problem(text)
        if problem is not None:
            raise PromptError(f"{path}: class {name!r}[{i}]: {problem}; rewrite it")
    return tuple(text.lower() for text in value)


def _problem(text: Any) -> str | None:
    """What keeps `text` from being encoded whole, or None."""
    if not isinstance(text, str):
        return f"must be text, got {type(text).__name__}"
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        return "holds half of a character"  # JSON can write it, no file can hold it
    if any(sign in text.lower() for sign in CLIP_SPECIAL_TOKENS):
        return f"holds {' or '.join(CLIP_SPECIAL_TOKENS)}, at which CLIP stops to read"
    return length_problem(text.lower()) if text.strip() else "is empty"


def _letters(name: str) -> str:
    """Potted_Plant and pottedplant → pottedplant."""
    return re.sub(r"[\s_-]", "", name).casefold()


def _same_name(key: str, prompt: ClassPrompt) -> bool:
    return key == prompt.name


def _same_letters(key: str, prompt: ClassPrompt) -> bool:
    return _letters(key) == _letters(prompt.name)


def _same_prompt(key: str, prompt: ClassPrompt) -> bool:
    """Whether the class's prompt calls it `key`: the whole prompt does, or a part between commas. Where the prompt does not
    hold the class's name, its first word counts too: `tvmonitor` of `tvmonitor screen`, the prompt of class `tv`."""
    spellings = {prompt.synonyms, *prompt.synonyms.split(",")}
    words = _words(prompt.synonyms)
    if f" {_words(prompt.name)} " not in f" {words} ":
        spellings.update(words.split()[:1])
    return _letters(key) in map(_letters, spellings)


def _words(text: str) -> str:
    """Words with a space between each: backpack,Bag → backpack bag."""
    return re.sub(r"[\s,_-]+", " ", text).casefold()
