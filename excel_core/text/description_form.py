"""The form of a description, in one place: what a file is refused for, and what a language model is told to repair."""

from collections.abc import Callable
from functools import cache

__all__ = ["CLIP_SIGNS", "CLIP_TOKENS", "FormCheck", "form_problem", "length_problem", "whole_problem"]

CLIP_TOKENS = 77  # start and end tokens included; what lies beyond is cut off without a word
CLIP_SIGNS = ("<|startoftext|>", "<|endoftext|>")  # its tokenizer takes these words for the tokens themselves
SHOWN = 60  # characters of a text that an error quotes
FormCheck = Callable[[str, str], str | None]


def form_problem(text: str, prefix: str) -> str | None:
    """What keeps `text` from being a description that begins with `prefix`, or None: it is one line of printable text in
    lower case with more after the beginning."""
    if not text or text != text.strip() or not text.isprintable():
        return f"must be one line of printable text without space at its ends, got {text!r}"
    if not text.startswith(prefix) or text != text.lower():
        return f"must be '{prefix}…' in lower case, got {text!r}"
    return None


def length_problem(text: str) -> str | None:
    """What CLIP would cut off, or None."""
    count = len(_tokenizer().encode(text)) + 2
    quoted = repr(text[:SHOWN]) + "…" * (len(text) > SHOWN)
    return f"is {count} of CLIP's tokens long, at most {CLIP_TOKENS} fit: {quoted}" if count > CLIP_TOKENS else None


def whole_problem(text: str, prefix: str) -> str | None:
    """Form, then length."""
    return form_problem(text, prefix) or length_problem(text)


@cache
def _tokenizer():  # type: ignore[no-untyped-def]
    from open_clip import SimpleTokenizer

    return SimpleTokenizer()
