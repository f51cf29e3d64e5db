"""What an edit of descriptions moved, for the terminal."""

from collections.abc import Sequence

from rich.console import Console

from artifacts.rows import ABSENT, Row, number, print_rows
from excel_core.text.knowledge_diff import ClassChange, Named

__all__ = ["class_change_rows", "print_prompts_diff"]


def class_change_rows(changes: Sequence[ClassChange]) -> list[Row]:
    """One row a class that changed: those with other texts first, then by how far T_c moved."""
    return [
        {
            "class": change.name,
            "texts": f"+{len(change.added)} −{len(change.removed)}",
            "cosine of T_c": ABSENT if change.cosine is None else number(change.cosine, 4),
            "attributes in": "\n".join(map(_said, change.moved_in)) or ABSENT,
            "attributes out": "\n".join(map(_said, change.moved_out)) or ABSENT,
        }
        for change in sorted((change for change in changes if change.changed), key=_order)
    ]


def print_prompts_diff(console: Console, a: str, b: str, clip: str, changes: Sequence[ClassChange], texts: bool) -> None:
    """The table, and each changed class's texts where `texts` is asked for."""
    rows = class_change_rows(changes)
    same = len(changes) - len(rows)
    about = f"a: {a}, b: {b}, through {clip}; {same} of {len(changes)} classes are the same"
    if not rows:
        console.print(about, markup=False, highlight=False, soft_wrap=True)
    note = "attributes: the heaviest of a class, named by their nearest description"
    print_rows(console, "What moved", rows, [about, note], ["class", "attributes in", "attributes out"])
    for change in changes if texts else ():
        for mark, found in (("−", change.removed), ("+", change.added)):
            for text in found:
                console.print(f"{mark} {text}", markup=False, highlight=False, soft_wrap=True)


def _order(change: ClassChange) -> tuple[bool, float]:
    return not (change.added or change.removed), -2.0 if change.cosine is None else change.cosine


def _said(attribute: Named) -> str:
    """("cat", "a clean origami cat. it has whiskers.") → "cat: has whiskers"."""
    of_class, description = attribute
    return f"{of_class}: {description.partition('. it ')[2].rstrip('.') or description}"
