"""n distinct descriptions of a class from a language model: the request, what is wrong with the reply, one round of repair."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from excel_core.errors import DescriptionError
from excel_core.text.chat import Chat, Message, Usage
from excel_core.text.description_form import whole_problem

__all__ = ["Asked", "ask_for_descriptions"]

SHOWN = 5  # problems named in an error; the model is told all of them
FIELD = "descriptions"
LAYOUT = f'Answer with one JSON object {{"{FIELD}": ["…", …]}} and nothing else. Its list holds the descriptions asked for.'
SCHEMA = {
    "type": "object",
    "properties": {FIELD: {"type": "array", "items": {"type": "string"}}},
    "required": [FIELD],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Asked:
    """What came of it: the texts, the model as the server names it, and what they cost."""

    texts: tuple[str, ...]
    model: str
    usage: Usage


def ask_for_descriptions(chat: Chat, request: str, prefix: str, n: int) -> Asked:
    """Send `request`; where fewer than n usable, distinct texts come back, say once what is wrong and ask for the rest.

    DescriptionError where that does not help either, with the first problems.
    """
    form = _response_format(chat.spec.structured)
    messages: list[Message] = [{"role": "system", "content": LAYOUT}, {"role": "user", "content": request}]
    reply = chat.ask(messages, form)
    kept, problems = _sorted_out(reply.content, prefix, [])
    usage = reply.usage
    if len(kept) < n:
        repair = _repair_request(kept, problems, prefix, n)
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": repair}]
        reply = chat.ask(messages, form)
        usage += reply.usage
        kept, problems = _sorted_out(reply.content, prefix, kept)
    if len(kept) < n:
        named = "; ".join(problems[:SHOWN]) or "too few came back"
        raise DescriptionError(
            f"{chat.spec.model}: {len(kept)} of {n} descriptions are usable after a round of repair: {named}; "
            "run again, or try another describe.model or describe.instruction"
        )
    return Asked(tuple(kept[:n]), reply.model, usage)


def _sorted_out(content: str, prefix: str, kept: list[str]) -> tuple[list[str], list[str]]:
    """`kept` with the reply's usable texts behind, and what is wrong with its other ones, or with it as a whole."""
    texts = _parsed(content)
    if isinstance(texts, str):
        return kept, [texts]
    kept, problems = list(kept), []
    taken = {text.casefold() for text in kept}
    for text in texts:
        if not isinstance(text, str):
            problems.append(f"must be text, got {json.dumps(text)[:100]}")
        elif text.casefold() in taken:
            problems.append(f"is there twice: {text!r}")
        elif (wrong := whole_problem(text, prefix)) is not None:
            problems.append(wrong)
        else:
            kept.append(text)
            taken.add(text.casefold())
    return kept, problems


def _parsed(content: str) -> list[Any] | str:
    """The reply's list, or what is wrong. A code fence around it, and a list without its object, are let pass: servers that
    know no JSON mode see many of both."""
    bare = content.strip()
    if bare.startswith("```") and bare.endswith("```"):
        bare = bare.removesuffix("```").partition("\n")[2]
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError) as error:
        return f"the reply is not JSON ({error})"
    found = value.get(FIELD) if isinstance(value, dict) else value
    return found if isinstance(found, list) else f'the reply is JSON, but not {{"{FIELD}": [texts]}}'


def _repair_request(kept: list[str], problems: list[str], prefix: str, n: int) -> str:
    """What the conversation goes on with."""
    lines = []
    if problems:
        lines += ["These cannot be used:", *(f"- {problem}" for problem in problems), ""]
    if kept:
        lines += [f"These {len(kept)} are kept, do not repeat them:", *(f"- {text}" for text in kept), ""]
    missing = n - len(kept)
    lines += [f"Write {missing} more, each beginning with '{prefix}' and different from all others. {LAYOUT}"]
    return "\n".join(lines)


def _response_format(structured: Literal["json_schema", "json_object", "text"]) -> dict[str, Any] | None:
    if structured == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": FIELD, "strict": True, "schema": SCHEMA}}
    return {"type": "json_object"} if structured == "json_object" else None
