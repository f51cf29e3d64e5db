"""The value of a setting as text, `stage.field=VALUE` → plain data. It may come from another machine: a parameter of a flow.

YAML's scalars and lists alone. Not read: tags, which could name types; anchors, by which a few lines stand for more values
than memory holds; lists within lists without end; and more text than any setting needs.
"""

from typing import Any

import yaml

from excel_core.errors import SettingError

__all__ = ["read_setting"]

MAX_CHARACTERS = 10_000
MAX_DEPTH = 4  # lists within lists


def read_setting(text: str) -> Any:
    """The value that `text` is in YAML. SettingError, in one line, for what is not read."""
    if len(text) > MAX_CHARACTERS:
        raise SettingError(f"the value has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    try:
        _check(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise SettingError(f"the value is not readable: {problem}; write text with odd signs in quotes") from None
    except ValueError as error:  # a month 13, a number of 5,000 digits
        raise SettingError(f"the value is not readable: {error}; write text in quotes") from None


def _check(text: str) -> None:
    """Go through YAML's events, which make no values yet."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SettingError("the value has an anchor (& or *), which settings do not need; write text in quotes")
        if tag := getattr(event, "tag", None):
            raise SettingError(f"the value has the tag {tag}, which settings do not need; write text in quotes")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SettingError(f"the value has more than {MAX_DEPTH} lists within each other")
