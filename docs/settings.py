"""docs/settings.md from the specs in excel_core/config/: python docs/settings.py writes it beside this file.

tests/core/test_docs.py fails where the page is not what the specs say.
"""

import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

sys.path.insert(0, str(Path(__file__).parent.parent))

from excel_core.config import RunSpec
from excel_core.config.presets import PRESETS

__all__ = ["settings_page"]

HEAD = """# Every setting

`--set stage.field=value` on the command line, `settings` and `edits` in a deployment. Values are YAML: `null`, `true`, `0.5`,
`[a, b]`. Defaults are those of the preset `voc` under the method `reference`; [presets](#presets) lists what the others change.
Written by `python docs/settings.py` from `excel_core/config/`.
"""
BOUNDS = {"Ge": ("≥ ", "ge"), "Gt": ("> ", "gt"), "Le": ("≤ ", "le"), "Lt": ("< ", "lt")}


def settings_page() -> str:
    """The whole page as Markdown."""
    lines = [HEAD]
    for stage, field in RunSpec.model_fields.items():
        if stage in ("preset", "method"):
            continue
        spec = field.annotation
        assert isinstance(spec, type) and issubclass(spec, BaseModel)
        what = (spec.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        lines += [f"## {stage}", "", what, "", "| setting | default | values | what it is |", "|---|---|---|---|"]
        lines += [_row(path, inner) for path, inner in _leaves(stage, spec)]
        lines.append("")
    lines += ["## Presets", "", "| preset | changes |", "|---|---|"]
    for name, edits in PRESETS.items():
        changes = ", ".join(f"`{path}={_yaml(value)}`" for path, value in _edits("", edits)) or "none: the defaults are its own"
        lines.append(f"| `{name}` | {changes} |")
    return "\n".join([*lines, ""])


def _leaves(path: str, spec: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Every field below a spec with its dotted path."""
    leaves = []
    for name, field in spec.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            leaves += _leaves(f"{path}.{name}", inner)
        else:
            leaves.append((f"{path}.{name}", field))
    return leaves


def _row(path: str, field: FieldInfo) -> str:
    default = "" if field.default is PydanticUndefined else f"`{_yaml(field.default)}`"
    words = (field.description or "").replace("|", "\\|").replace("None:", "`null`:")
    return f"| `{path}` | {default} | {_values(field.annotation, field.metadata)} | {words} |"


def _values(annotation: Any, metadata: list[Any]) -> str:
    """Choices, or the type with its bounds."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _values(arguments[0], [*_metadata(arguments[1:]), *metadata])
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("`null`" if choice is type(None) else _values(choice, metadata) for choice in arguments)
    if origin is tuple:
        items = [_values(item, []) for item in arguments if item is not ...]
        return f"list of {items[0]}" if ... in arguments else f"[{'; '.join(items)}]"
    name = {"str": "text", "int": "integer", "float": "number", "bool": "`true`, `false`"}[annotation.__name__]
    bounds = [f"{sign}{getattr(item, attribute)}" for item in metadata for sign, attribute in _bound(item)]
    return " ".join([name, ", ".join(bounds)]).strip()


def _metadata(items: tuple[Any, ...]) -> list[Any]:
    return [inner for item in items for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _bound(item: Any) -> list[tuple[str, str]]:
    return [BOUNDS[type(item).__name__]] if type(item).__name__ in BOUNDS else []


def _edits(path: str, edits: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in edits.items():
        pairs += _edits(f"{path}{name}.", value) if isinstance(value, dict) else [(path + name, value)]
    return pairs


def _yaml(value: Any) -> str:
    """A value as --set takes it."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    (Path(__file__).parent / "settings.md").write_text(settings_page(), encoding="utf-8")
