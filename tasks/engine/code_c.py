"""The loops in C (excel_core/kernels/loops) as text, for the digest of the code: which file has a function that Python calls by
its name, and what of a file can change a result."""

import re
from functools import cache
from pathlib import Path

__all__ = ["c_sources", "file_of_function", "included_files", "is_c", "stripped_c"]

FOLDER = "excel_core/kernels/loops"
FUNCTION = re.compile(r"\bLOOP\((\w+)\)\(")  # as loops.h names what Python calls
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
# Texts first, so that what looks like a comment in one is none.
TEXT_OR_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|/\*.*?\*/|//[^\n]*', re.DOTALL)


@cache
def c_sources(root: Path) -> dict[str, str]:
    """The text of every file below `root`, by its path, as they are at the first call."""
    paths = sorted(path for path in (root / FOLDER).glob("*.[ch]"))
    return {path.relative_to(root).as_posix(): path.read_text(errors="replace", encoding="utf-8") for path in paths}


def is_c(module: str) -> bool:
    """Whether a definition's module is a file of C."""
    return module.endswith((".c", ".h"))


@cache
def file_of_function(name: str, root: Path) -> str | None:
    """The file that has the function which `call(name, …)` calls."""
    return next(
        (path for path, text in c_sources(root).items() if path.endswith(".c") and name in FUNCTION.findall(text)), None
    )


def included_files(path: str, root: Path) -> list[str]:
    """The project's own files that a file includes."""
    names = INCLUDE.findall(c_sources(root).get(path, ""))
    return [f"{FOLDER}/{name}" for name in names if f"{FOLDER}/{name}" in c_sources(root)]


@cache
def stripped_c(path: str, root: Path) -> str:
    """A file without comments and layout. Lines stay, for those of the preprocessor end with them."""
    text = TEXT_OR_COMMENT.sub(lambda match: match[0] if match[0].startswith('"') else " ", c_sources(root).get(path, ""))
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)
