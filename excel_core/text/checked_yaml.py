"""YAML nodes in, checked values out: errors name the file, the line and the field. `field` is what the error calls a node.

A plain loader would keep the last of two equal keys, take `no` for a boolean, and know no lines. JSON is read as YAML.
"""

import json
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]  # typed only where types-PyYAML is installed

from excel_core.errors import PromptError
from excel_core.text_files import decoded_text

__all__ = [
    "compose_json", "compose_yaml", "error_at", "fields", "items", "line_of", "mapping", "read_text", "text", "unique_text",
]  # fmt: skip


def read_text(path: Path) -> str:
    """The whole file; PromptError where it cannot be read, or is neither UTF-8 nor UTF-16 with its mark."""
    try:
        return decoded_text(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise PromptError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise error_at(path, line, "file", "not UTF-8", "save it as UTF-8") from error


def compose_yaml(path: Path, source: str) -> Any:
    """The root node; None for an empty file."""
    return _composed(path, source, lambda: yaml.compose(source, Loader=yaml.SafeLoader))


def _composed(path: Path, source: str, compose: Callable[[], Any]) -> Any:
    try:
        return compose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise error_at(path, line, "file", f"not valid YAML: {error.problem}", "correct this line") from error
    except yaml.reader.ReaderError as error:
        line = source.count("\n", 0, error.position) + 1
        raise error_at(path, line, "file", f"not valid YAML: {error.reason}", "remove the character") from error
    except RecursionError:
        raise error_at(path, 1, "file", "lists within lists without end", "correct it") from None


def compose_json(path: Path, source: str) -> Any:
    """The root node of a JSON file."""
    try:
        json.loads(source)
    except json.JSONDecodeError as error:
        raise error_at(path, error.lineno, "file", f"not valid JSON: {error.msg}", "correct it") from error
    except RecursionError:
        raise error_at(path, 1, "file", "lists within lists without end", "correct it") from None
    # JSON is YAML but for tabs between tokens, and YAML nodes know their line. libyaml reads it in a twentieth of the time.
    source = source.replace("\t", " ")
    if not hasattr(yaml, "CSafeLoader"):
        return compose_yaml(path, source)
    return _composed(path, source, lambda: yaml.compose(source, Loader=yaml.CSafeLoader))


def mapping(path: Path, node: Any, field: str) -> dict[str, Any]:
    """The value nodes of a mapping by key, its accents composed (NFC); no key twice."""
    if not isinstance(node, yaml.MappingNode):
        raise error_at(path, node, field, f"must be a mapping, got {_kind(node)}", "write key-value pairs")
    values: dict[str, Any] = {}
    for key_node, value in node.value:
        key = _composed_accents(text(path, key_node, f"a key of {field}"))
        if key in values:
            raise error_at(path, key_node, field, f"key {key!r} is given twice", "merge the two")
        values[key] = value
    return values


def fields(path: Path, node: Any, field: str, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The value nodes of a mapping that must have `keys`, may have those of `optional`, and no others."""
    values = mapping(path, node, field)
    step = f"the keys are: {', '.join([*keys, *optional])}"
    for key_node, _ in node.value:
        key = _composed_accents(key_node.value)
        if key not in keys and key not in optional:
            raise error_at(path, key_node, field, f"unknown key {key_node.value!r}", step)
    for key in keys:
        if key not in values:
            raise error_at(path, node, field, f"key {key!r} is missing", step)
    return values


def items(path: Path, node: Any, field: str) -> list[Any]:
    """The nodes of a list that is not empty."""
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        raise error_at(path, node, field, f"must be a list with entries, got {_kind(node)}", "write a list")
    return list(node.value)


def text(path: Path, node: Any, field: str) -> str:
    """One line of text. The tag tells text from what YAML takes for a number, a boolean or null."""
    if _kind(node) != "str":
        raise error_at(path, node, field, f"must be text, got {_kind(node)}", "write a text, in quotes")
    value = str(node.value)
    if not value or value != value.strip() or not value.isprintable():
        problem = f"must be one line of printable text without space at its ends, got {value!r}"
        raise error_at(path, node, field, problem, "rewrite it")
    return value


def unique_text(path: Path, node: Any, field: str, taken: dict[str, int]) -> str:
    """A text that is not in `taken` (text → line), case apart; adds it."""
    value = text(path, node, field)
    key = _composed_accents(value.casefold())
    if key in taken:
        problem = f"{value!r} is already on line {taken[key]}"
        raise error_at(path, node, field, problem, "replace one of the two")
    taken[key] = line_of(node)
    return value


def _composed_accents(value: str) -> str:
    return unicodedata.normalize("NFC", value)


def line_of(node: Any) -> int:
    """Counted from 1; 1 where there is no node."""
    return 1 if node is None else int(node.start_mark.line) + 1


def error_at(path: Path, at: Any, field: str, problem: str, next_step: str) -> PromptError:
    """The error to raise; `at` is a node or a line counted from 1."""
    line = at if isinstance(at, int) else line_of(at)
    return PromptError(f"{path}:{line}: {field}: {problem}; {next_step}")


def _kind(node: Any) -> str:
    """str, int, bool, null, seq, map, …; an empty file has no node."""
    return "nothing" if node is None else str(node.tag).rpartition(":")[2]
