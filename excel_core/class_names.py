"""Class names: one spelling of each, told apart by more than case or accents, and no more of them than a label map has values.

Everything that takes class names asks here: class files, folders of photos, `labels.csv`, `--classes`, the Python interface.
"""

import unicodedata
from collections.abc import Sequence

__all__ = ["MAX_CLASSES", "canonical_name", "class_names_problem", "name_key"]

MAX_CLASSES = 254  # label maps have 8 bits, 0 is background and 255 is ignore
BACKGROUND = "background"


def canonical_name(name: str) -> str:
    """The name with single spaces, its accents composed (NFC): macOS writes `é` in names of files as two characters, keyboards
    as one."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def name_key(name: str) -> str:
    """Equal for names that a person, CLIP or a file system may take for the same: `Potted_Plant` and `potted plant`."""
    folded = unicodedata.normalize("NFKC", name).casefold().replace("_", " ")
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def class_names_problem(names: Sequence[str]) -> str | None:
    """What is wrong with these names together, and what to do about it; None where they can be classes. `names` as they are
    written, each once."""
    if len(names) > MAX_CLASSES:
        return f"{len(names)} classes, at most {MAX_CLASSES} fit a label map (255 is 'ignore'); leave some out or merge them"
    spelling: dict[str, str] = {}
    for name in names:
        key = name_key(name)
        if key == BACKGROUND:
            return f"no class can be called {name!r}: what is no class is background anyway, label 0; rename it or leave it out"
        first = spelling.setdefault(key, name)
        if first != name:
            return f"classes {_told_apart(first, name)} differ only by {_difference(first, name)}; give both one spelling"
    return None


def _difference(one: str, other: str) -> str:
    """What tells two names of one key apart, in words."""
    if canonical_name(one) == canonical_name(other):
        return "white space" if unicodedata.is_normalized("NFC", one + other) else "how accents are composed"
    return "case" if canonical_name(one).casefold() == canonical_name(other).casefold() else "signs that stand for the same"


def _told_apart(one: str, other: str) -> str:
    """Both names, as escapes where they look the same."""
    show = ascii if canonical_name(one) == canonical_name(other) else repr
    return f"{show(one)} and {show(other)}"
