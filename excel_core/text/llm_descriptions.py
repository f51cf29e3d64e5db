"""Descriptions from a language model: the instruction, what is wrong with a reply, and one round of repair.

The instruction is a text file of the user's with these placeholders:

    {class}      the class's name                       must be there
    {n}          how many descriptions                  must be there
    {beginning}  what each description begins with      must be there: "a clean origami bird. it "
    {about}      which thing the name means, with a colon and a space before it; nothing for a class without `about`
    {others}     the other classes, separated by commas; "none" for a class that is alone

A brace that is meant as such is written twice. The instruction says nothing about the layout of the reply: LAYOUT asks for it.
"""

import hashlib
import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from excel_core.errors import DescriptionError
from excel_core.text.chat import Chat, Message, Reply, Usage
from excel_core.text.checked_yaml import error_at, read_text
from excel_core.text.descriptions import description_problem
from excel_core.text.prompts import ClassPrompt, PromptSet
from excel_core.text.replies import FIELD, lines_with, normal_text, reply_problem, reply_texts

__all__ = ["Instruction", "LlmDescriptions", "load_instruction", "request_descriptions"]

REQUIRED_PLACEHOLDERS = ("class", "n", "beginning")
PLACEHOLDERS = (*REQUIRED_PLACEHOLDERS, "about", "others")
MAX_PROBLEMS = 5  # named in an error; the model is told all of them
NO_TEXT = "(no text)"  # a reply without one, as the repair quotes it: servers refuse messages that are empty
LAYOUT = f'Answer with one JSON object {{"{FIELD}": ["…", …]}} and nothing else. Its list holds the descriptions asked for.'
SCHEMA = {
    "type": "object",
    "properties": {FIELD: {"type": "array", "items": {"type": "string"}}},
    "required": [FIELD],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Instruction:
    """A checked template."""

    template: str

    @property
    def digest(self) -> str:
        """16 hex digits of SHA-256 over the template."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    def fill(self, prompts: PromptSet, prompt: ClassPrompt, n: int) -> str:
        """The request for n descriptions of the class `prompt` of `prompts`."""
        other_classes = ", ".join(name for name in prompts.class_names if name != prompt.name)
        fields = {
            "class": prompt.name,
            "n": n,
            "beginning": prompts.description_prefix(prompt.name),
            "about": f": {prompt.about}" if prompt.about else "",
            "others": other_classes or "none",
        }
        return self.template.format_map(fields)


def load_instruction(path: Path) -> Instruction:
    """Read a template. PromptError names the line of an unknown or malformed placeholder, or the missing one."""
    source = read_text(path)
    names, line = set(), 1
    try:
        for literal, name, layout, conversion in string.Formatter().parse(source):
            line += literal.count("\n")
            if name is None:
                continue
            if name not in PLACEHOLDERS or layout or conversion:
                written = name + (f"!{conversion}" if conversion else "") + (f":{layout}" if layout else "")
                step = f"the placeholders are: {', '.join(f'{{{known}}}' for known in PLACEHOLDERS)}"
                raise error_at(path, line, "placeholders", f"unknown {{{written}}}", step)
            names.add(name)
    except ValueError as error:
        step = "write a brace that is no placeholder twice: {{ or }}"
        raise error_at(path, line, "placeholders", f"from here on, {str(error).lower()}", step) from None
    for name in REQUIRED_PLACEHOLDERS:
        if name not in names:
            raise error_at(path, 1, "placeholders", f"{{{name}}} is missing", "put it where it belongs")
    return Instruction(source)


@dataclass(frozen=True)
class LlmDescriptions:
    """The n texts of one class, the model as the server names it, and what they cost."""

    texts: tuple[str, ...]
    model: str
    usage: Usage


def request_descriptions(chat: Chat, request: str, prefix: str, n: int) -> LlmDescriptions:
    """Send `request`. Where fewer than n usable, distinct texts come back, say once what is wrong and ask for the rest.

    `prefix`: what each text must begin with. DescriptionError where the repair does not help, with the first problems.
    """
    response_format = _response_format(chat.spec.structured)
    messages: list[Message] = [{"role": "system", "content": LAYOUT}, {"role": "user", "content": request}]
    reply = chat.ask(messages, response_format)
    usable, problems = _usable_texts(reply, prefix, [])
    usage = reply.usage
    if len(usable) < n:
        repair = _repair_request(usable, problems, prefix, n)
        messages += [{"role": "assistant", "content": reply.content or NO_TEXT}, {"role": "user", "content": repair}]
        reply = chat.ask(messages, response_format)
        usage += reply.usage
        usable, problems = _usable_texts(reply, prefix, usable)
    if len(usable) < n:
        reasons = "; ".join(problems[:MAX_PROBLEMS]) or "too few came back"
        raise DescriptionError(
            f"{chat.spec.model}: {len(usable)} of {n} descriptions are usable after a round of repair: {reasons}; "
            "run again, or try another describe.model or describe.instruction"
        )
    return LlmDescriptions(tuple(usable[:n]), reply.model, usage)


def _usable_texts(reply: Reply, prefix: str, before: list[str]) -> tuple[list[str], list[str]]:
    """The usable texts: those of `before`, then the reply's; and what is wrong with the others, or with the whole reply."""
    texts: list[Any] | None = reply_texts(reply.content)
    if texts is None:
        texts = lines_with(reply.content, prefix)
    if texts is None:
        return before, [reply_problem(reply.content, reply.reasoning)]
    usable, problems = list(before), []
    known_texts = {text.casefold() for text in usable}
    for text in texts:
        text = normal_text(text, prefix) if isinstance(text, str) else text
        if not isinstance(text, str):
            problems.append(f"must be text, got {json.dumps(text)[:100]}")
        elif text.casefold() in known_texts:
            problems.append(f"is there twice: {text!r}")
        elif (problem := description_problem(text, prefix)) is not None:
            problems.append(problem)
        else:
            usable.append(text)
            known_texts.add(text.casefold())
    return usable, problems


def _repair_request(usable: list[str], problems: list[str], prefix: str, n: int) -> str:
    """The next message to the model."""
    lines = []
    if problems:
        lines += ["These cannot be used:", *(f"- {problem}" for problem in problems), ""]
    if usable:
        lines += [f"These {len(usable)} are kept, do not repeat them:", *(f"- {text}" for text in usable), ""]
    missing = n - len(usable)
    lines += [f"Write {missing} more, each beginning with '{prefix}' and different from all others. {LAYOUT}"]
    return "\n".join(lines)


def _response_format(structured: Literal["json_schema", "json_object", "text"]) -> dict[str, Any] | None:
    if structured == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": FIELD, "strict": True, "schema": SCHEMA}}
    return {"type": "json_object"} if structured == "json_object" else None
