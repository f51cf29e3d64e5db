"""The moment at which a process begins its Nth part of a stage, as Python's audit events tell it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["PartBegun"]


@dataclass
class PartBegun:
    """True at the event before the folder of the `number`th part of stage `kind` is made, once."""

    kind: str
    number: int
    begun: set[str] = field(default_factory=set)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event != "os.mkdir":
            return False
        path = Path(str(arguments[0]))
        is_new = path.parent.name == f"{self.kind}-parts" and path.suffix == ".partial" and path.name not in self.begun
        self.begun |= {path.name} if is_new else set()
        return is_new and len(self.begun) == self.number
