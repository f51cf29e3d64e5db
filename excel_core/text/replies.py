"""From a language model's reply to its texts, as servers really send them.

* Thinking aloud before the answer is cut off: `<think>…</think>`, whose beginning some servers leave out.
* The answer may stand in a code fence, between sentences, or end its lists with a comma. The last answer counts. Without any
  JSON list, the lines that are descriptions count.
* A text loses its numbering, bullet, quote or bold type, and blanks at its ends. Blanks inside, such as those that break no
  line, become spaces. Texts are lower-cased, as CLIP reads them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from excel_core.errors import shown

__all__ = ["FIELD", "lines_with", "normal_text", "reply_problem", "reply_texts"]

FIELD = "descriptions"
THINKING = re.compile(r".*</(think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)  # up to its last end
COMMA_AT_END = re.compile(r",(?=\s*[\]}])")
UNSEEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))  # joiners and soft hyphens
OPENING = re.compile(r"[{\[]")
MAX_OPENINGS = 2000  # where a JSON value is looked for in prose
SHOWN_CHARACTERS = 120  # of a reply in a message


def reply_texts(content: str) -> list[Any] | None:
    """The reply's list, or None where it holds none. Its members may be anything; a member that is an object with one text is
    that text. Several such objects in a row are a list too."""
    answer = THINKING.sub("", content).lstrip("\ufeff")
    texts, singles = None, []
    for value in _values(answer):
        members = _list_of(value)
        texts = members if members is not None else texts
        singles += [value] if _has_text([value]) else []
    if texts is None and len(singles) > 1:
        texts = singles
    return texts if texts is None else [_only_text(text) for text in texts]


def lines_with(content: str, prefix: str) -> list[str] | None:
    """The lines of a plain list, `1. PREFIX…` or `- PREFIX…`; None where no line begins so but for numbering and the like."""
    answer = THINKING.sub("", content)
    lines = [text for text in answer.splitlines() if normal_text(text, prefix).startswith(prefix.lower())]
    return lines or None


def reply_problem(content: str, reasoning: str = "") -> str:
    """Why a reply has no list, with its beginning; of an empty one, how much the model thought beside it."""
    if not content.strip():
        if reasoning.strip():
            return (
                f"the reply has no text, only {len(reasoning)} characters of reasoning, which begin with "
                f"{_beginning(reasoning)}; the server must give the answer as content: turn the model's thinking off there"
            )
        return "the reply is empty"
    try:
        json.loads(content)
    except (ValueError, RecursionError) as error:
        return f"the reply is not JSON ({error}); it begins with {_beginning(content)}"
    return f'the reply is JSON, but not {{"{FIELD}": [texts]}}; it begins with {_beginning(content)}'


def normal_text(text: str, prefix: str) -> str:
    """`text` in lower case, with single spaces, without what stands before `prefix` and has no letter: `1. `, `- `, a quote."""
    plain = " ".join(text.translate(UNSEEN).replace("**", "").split()).lower()
    before, beginning, after = plain.partition(prefix.lower())
    if not beginning or not before or any(sign.isalpha() for sign in before):
        return plain
    if before[-1] in "\"'“‘":
        after = after.rstrip("\"'”’")
    return beginning + after


def _values(answer: str) -> Iterator[Any]:
    """The JSON values in an answer, in order: the whole of it, or those that stand between words."""
    for candidate in (answer, COMMA_AT_END.sub("", answer)):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        yield _decoded(value)
        return
    answer, decoder, end = COMMA_AT_END.sub("", answer), json.JSONDecoder(), 0
    for tries, opening in enumerate(OPENING.finditer(answer)):
        if tries > MAX_OPENINGS:
            return
        if opening.start() < end:
            continue  # inside the last value
        try:
            value, end = decoder.raw_decode(answer, opening.start())
        except (ValueError, RecursionError):
            continue
        yield value


def _decoded(value: Any) -> Any:
    """A value that was written as JSON twice, read twice."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _list_of(value: Any) -> list[Any] | None:
    """The list under FIELD or the only list of an object, by itself, or numbered as {"1": text, …}; None for any other value.
    A list by itself in which there is no text, such as a footnote's [1], is none."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(inner := next(iter(value.values())), dict) and FIELD in inner:
        value = inner  # under one more name
    texts = _under_field(value) if isinstance(value, dict) else value
    if isinstance(value, dict) and isinstance(texts, dict):
        texts = list(texts.values())
    if not isinstance(texts, list):
        return None
    return texts if isinstance(value, dict) or _has_text(texts) else None


def _under_field(value: dict[str, Any]) -> Any:
    """What an object has under FIELD; else its only list of texts, whatever that is called: `Descriptions`, `texts`."""
    if FIELD in value:
        return value[FIELD]
    lists = [inner for inner in value.values() if isinstance(inner, list) and _has_text(inner)]
    return lists[0] if len(lists) == 1 else None


def _has_text(values: list[Any]) -> bool:
    return any(isinstance(_only_text(inner), str) for inner in values)


def _only_text(value: Any) -> Any:
    """An object with one text, such as `{"id": 1, "text": "…"}` → that text; anything else as it is."""
    texts = [inner for inner in value.values() if isinstance(inner, str)] if isinstance(value, dict) else []
    return texts[0] if len(texts) == 1 else value


def _beginning(text: str) -> str:
    """The first words of a reply, quoted, on one line."""
    line = " ".join(text.split())
    return shown(line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…")
