"""Settings as text: the value of `stage.field=VALUE`, and a file of settings. They may come from another machine.

YAML's scalars, lists and mappings alone. Not read: tags, which could name types; anchors, by which a few lines stand for more
values than memory holds; lists within lists without end; and more text than any setting needs.
"""

import re
from typing import Any

import yaml

from excel_core.errors import SettingError, shown

__all__ = ["read_setting", "read_settings_file", "without_folders"]

MAX_CHARACTERS, MAX_FILE_CHARACTERS = 10_000, 1_000_000
ABSOLUTE = re.compile(r"(?<![^\s:'\"\[(,=])~?/(?:[^/'\",\])]*/)*")  # the folders of a path, where a word begins
MAX_DEPTH, MAX_FILE_DEPTH = 4, 12  # lists within lists; in a file, also groups within groups


def read_setting(text: str) -> Any:
    """The value that `text` is in YAML. SettingError, in one line, for what is not read."""
    _check_length(text, MAX_CHARACTERS)
    try:
        _check(text, MAX_DEPTH)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise SettingError(f"the value is not readable: {problem}; write text with odd signs in quotes") from None
    except ValueError as error:  # a month 13, a number of 5,000 digits
        raise SettingError(f"the value is not readable: {error}; write text in quotes") from None


def read_settings_file(text: str) -> Any:
    """The content of a YAML file. SettingError, in one line with the number of the line, for what is not read, and for a name
    that a group has twice, of which YAML would keep the last without a word."""
    _check_length(text, MAX_FILE_CHARACTERS)
    try:
        _check(text, MAX_FILE_DEPTH)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        if tree is not None:
            _check_names(tree)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise SettingError(f"{line}not readable: {problem}") from None
    except ValueError as error:
        raise SettingError(f"a value is not readable: {error}; write text in quotes") from None


def _check_length(text: str, limit: int) -> None:
    if len(text) > limit:
        raise SettingError(f"the value has {len(text):,} characters, at most {limit:,} are read")


def _check(text: str, max_depth: int) -> None:
    """Go through YAML's events, which make no values yet."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SettingError("the value has an anchor (& or *), which settings do not need; write text in quotes")
        if tag := getattr(event, "tag", None):
            raise SettingError(f"the value has the tag {tag}, which settings do not need; write text in quotes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > max_depth:
            raise SettingError(f"the value has more than {max_depth} lists within each other")


def _check_names(node: yaml.Node) -> None:
    """SettingError for a name that stands twice in a group."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_names(item)
    elif isinstance(node, yaml.MappingNode):
        names = set()
        for name, value in node.value:
            if name.value in names:
                raise SettingError(f"line {name.start_mark.line + 1}: {shown(name.value)} is there twice; leave one out")
            names.add(name.value)
            _check_names(value)


def without_folders(value: str) -> str:
    """A setting's text for others to read: absolute paths lose the folders of this machine, `ViT-B-16:/data/x.pt` becomes
    `ViT-B-16:x.pt`. Names such as `hf-hub:USER/MODEL` and relative paths stay."""
    return ABSOLUTE.sub("", value)
