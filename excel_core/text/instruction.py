"""The instruction: what a language model is asked for a class. A text file of the user's with checked placeholders.

    {class}      the class's name                       must be there
    {n}          how many descriptions                  must be there
    {beginning}  what each description begins with      must be there: "a clean origami bird. it "
    {about}      which thing the name means, with a colon and a space before it; nothing for a class without `about`
    {others}     the other classes, separated by commas; "none" for a class that is alone

A brace that is meant as such is written twice. How the reply is to be laid out is not the instruction's matter: the parser
(asking.py) asks for that by itself.
"""

import hashlib
import string
from dataclasses import dataclass
from pathlib import Path

from excel_core.text.checked_yaml import error_at, read_text
from excel_core.text.prompts import ClassPrompt, PromptSet

__all__ = ["Instruction", "load_instruction"]

NEEDED = ("class", "n", "beginning")
KNOWN = (*NEEDED, "about", "others")


@dataclass(frozen=True)
class Instruction:
    """A checked template."""

    template: str

    @property
    def digest(self) -> str:
        """16 hex digits of SHA-256 over the template."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    def fill(self, prompts: PromptSet, one: ClassPrompt, n: int) -> str:
        """The request for n descriptions of class `one` of `prompts`."""
        others = ", ".join(name for name in prompts.class_names if name != one.name)
        values = {
            "class": one.name,
            "n": n,
            "beginning": prompts.description_prefix(one.name),
            "about": f": {one.about}" if one.about else "",
            "others": others or "none",
        }
        return self.template.format_map(values)


def load_instruction(path: Path) -> Instruction:
    """Read a template; PromptError with the line of a placeholder that is unknown or malformed, or naming a missing one."""
    source = read_text(path)
    found, line = set(), 1
    try:
        for literal, name, layout, conversion in string.Formatter().parse(source):
            line += literal.count("\n")
            if name is None:
                continue
            if name not in KNOWN or layout or conversion:
                written = name + (f"!{conversion}" if conversion else "") + (f":{layout}" if layout else "")
                step = f"the placeholders are: {', '.join(f'{{{known}}}' for known in KNOWN)}"
                raise error_at(path, line, "placeholders", f"unknown {{{written}}}", step)
            found.add(name)
    except ValueError as error:
        step = "write a brace that is no placeholder twice: {{ or }}"
        raise error_at(path, line, "placeholders", f"from here on, {str(error).lower()}", step) from None
    for name in NEEDED:
        if name not in found:
            raise error_at(path, 1, "placeholders", f"{{{name}}} is missing", "put it where it belongs")
    return Instruction(source)
