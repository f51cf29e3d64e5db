"""Ask a language model for one class's descriptions, among at most `describe.concurrency` requests at a time."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any

from excel_core.config import DescribeSpec
from excel_core.errors import DescriptionError
from excel_core.text.asking import ask_for_descriptions
from excel_core.text.chat import OPENAI, Chat, Usage
from excel_core.text.class_sets import PROMPTS_FOLDER
from excel_core.text.instruction import Instruction, load_instruction
from excel_core.text.prompts import PromptSet
from tasks.inputs.api_key import api_key

__all__ = ["Answer", "ask_class", "asked_provenance", "instruction_of"]


@dataclass(frozen=True)
class Answer:
    """A class's texts, where they come from, and what they cost: requests, prompt_tokens, completion_tokens, and usd where
    the prices are told."""

    texts: tuple[str, ...]
    provenance: dict[str, str]
    cost: dict[str, float]


def instruction_of(spec: DescribeSpec) -> Instruction:
    """The request's template: the repository's, or the user's own."""
    return load_instruction(Path(spec.instruction) if spec.instruction else PROMPTS_FOLDER / "describe.md")


def ask_class(spec: DescribeSpec, prompts: PromptSet, name: str) -> Answer:
    """describe.n descriptions of class `name`. Its place among the requests is held until they are whole, repair and
    retries included. DescriptionError names the class."""
    instruction = instruction_of(spec)
    one = next(entry for entry in prompts.classes if entry.name == name)
    request = instruction.fill(prompts, one, spec.n)
    with _places(spec), Chat(spec, api_key(spec)) as chat:
        try:
            asked = ask_for_descriptions(chat, request, prompts.description_prefix(name), spec.n)
        except DescriptionError as error:
            raise DescriptionError(f"class {name!r}: {error}") from None
    provenance = {"model": asked.model, "date": f"{datetime.now(UTC):%Y-%m-%d}", "instruction": instruction.digest}
    return Answer(asked.texts, provenance, _cost(asked.usage, spec))


def asked_provenance(spec: DescribeSpec) -> dict[str, str]:
    """What is the same for all classes of a stage."""
    found: dict[str, Any] = {"provider": spec.provider, "server": spec.base_url or OPENAI, "model asked for": spec.model}
    if spec.temperature is not None:
        found["temperature"] = f"{spec.temperature:g}"
    return found


def _cost(usage: Usage, spec: DescribeSpec) -> dict[str, float]:
    found: dict[str, float] = asdict(usage)
    if spec.input_price is None or spec.output_price is None:
        return found
    # At the prices of the time: they may be others when it is looked at.
    return found | {"usd": (usage.prompt_tokens * spec.input_price + usage.completion_tokens * spec.output_price) / 1e6}


_semaphores: dict[tuple[str | None, int], BoundedSemaphore] = {}
_lock = Lock()


def _places(spec: DescribeSpec) -> BoundedSemaphore:
    """Shared by all threads of this process that ask the same server under the same limit."""
    with _lock:
        return _semaphores.setdefault((spec.base_url, spec.concurrency), BoundedSemaphore(spec.concurrency))
