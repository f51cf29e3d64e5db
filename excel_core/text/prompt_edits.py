"""What was edited between two class sets with their descriptions: the words, class by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from excel_core.text.prompts import PromptSet

__all__ = ["ClassEdit", "Words", "background_edit", "class_edits"]


@dataclass(frozen=True)
class Words:
    """A class set and the descriptions of each of its classes; perhaps none."""

    prompts: PromptSet
    texts: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ClassEdit:
    """A class's edit. `prompt`: the filled template before and after, None where it is as before. `added`, `removed`:
    descriptions; one that stands there twice is one."""

    prompt: tuple[str, str] | None
    added: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def edited(self) -> bool:
        """Whether any word differs."""
        return bool(self.prompt or self.added or self.removed)


def class_edits(before: Words, after: Words) -> dict[str, ClassEdit]:
    """The edit of every class that both have, in the order of `before`."""
    old, new = (dict(zip(words.prompts.class_names, words.prompts.templates(), strict=True)) for words in (before, after))
    edits = {}
    for name in (name for name in old if name in new):
        texts, new_texts = before.texts.get(name, ()), after.texts.get(name, ())
        edits[name] = ClassEdit(
            prompt=None if old[name] == new[name] else (old[name], new[name]),
            added=_first_alone(new_texts, texts),
            removed=_first_alone(texts, new_texts),
        )
    return edits


def background_edit(before: PromptSet, after: PromptSet) -> ClassEdit:
    """The background prompts that came and went, as they are encoded."""
    old, new = before.background_templates(), after.background_templates()
    return ClassEdit(None, added=_first_alone(new, old), removed=_first_alone(old, new))


def _first_alone(texts: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Those of `texts` that `others` lack, each once."""
    return tuple(dict.fromkeys(text for text in texts if text not in others))
