"""Names and output of any script, whatever the locale. LC_ALL=C has letters of English alone; Python takes UTF-8 for it, unless
it is told not to (PYTHONUTF8=0)."""

import codecs
import os
import sys
from io import TextIOWrapper

__all__ = ["restart_in_utf8", "write_every_character"]


def restart_in_utf8() -> None:
    """Where names of files could not be read, begin this command again in Python's UTF-8 mode, which its processes inherit."""
    if _is_ascii(sys.getfilesystemencoding()) and not sys.flags.utf8_mode:
        command = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONUTF8": "1"})  # noqa: S606  this command itself; no shell


def write_every_character() -> None:
    """Let output and errors hold every character: in UTF-8 where the locale has no encoding of its own; in another encoding a
    question mark stands for what it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8" if _is_ascii(stream.encoding) else None, errors="replace")


def _is_ascii(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "ascii"
