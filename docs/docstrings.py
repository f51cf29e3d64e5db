"""A Griffe extension: the aligned columns of our docstrings stay as they are in the source, as code blocks.

`labels.csv    image,labels` on lines of their own would run into one paragraph as Markdown.
"""

import re
from typing import Any

import griffe

ALIGNED = re.compile(r"^\S.*\S {2,}\S|^[├└│] ?")  # two or more spaces inside a line, or a tree


class AlignedColumns(griffe.Extension):  # type: ignore[misc]
    """Turns runs of aligned lines into code blocks, wherever Griffe reads a docstring."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """obj: a module, class, function or attribute; its docstring is changed in place."""
        if obj.docstring is not None:
            obj.docstring.value = with_code_blocks(obj.docstring.value)


def with_code_blocks(text: str) -> str:
    """text with every run of aligned lines, and of lines indented below them, as a fenced block."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        aligned = bool(ALIGNED.search(line)) or (inside and line.startswith("  "))
        if aligned != inside:
            lines += ["", "```text"] if aligned else ["```", ""]
        lines.append(line)
        inside = aligned
    return "\n".join([*lines, "```"] if inside else lines)
