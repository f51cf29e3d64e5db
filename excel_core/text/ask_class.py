"""Ask a language model for one class's descriptions, among at most `describe.concurrency` requests at a time."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore, Lock

from pydantic import BaseModel, ConfigDict, SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import DescriptionError
from excel_core.text.chat import OPENAI_URL, Chat, Usage
from excel_core.text.class_sets import PROMPTS_FOLDER
from excel_core.text.llm_descriptions import Instruction, load_instruction, request_descriptions
from excel_core.text.prompts import PromptSet

__all__ = ["Answer", "LlmCost", "ask_class", "asked_provenance", "instruction_of"]


class LlmCost(BaseModel):
    """What a language model took: requests and tokens; `usd` at the prices of the time, where the settings name them."""

    model_config = ConfigDict(frozen=True)

    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None = None

    @classmethod
    def of(cls, usage: Usage, spec: DescribeSpec) -> "LlmCost":
        """Of one class's requests."""
        usd = None
        if spec.input_price is not None and spec.output_price is not None:  # USD per million tokens
            usd = (usage.prompt_tokens * spec.input_price + usage.completion_tokens * spec.output_price) / 1e6
        return cls(**vars(usage), usd=usd)

    @classmethod
    def sum(cls, costs: Iterable["LlmCost"]) -> "LlmCost | None":
        """All of them together, in USD where all have prices; None for none."""
        listed = list(costs)
        if not listed:
            return None
        prices = [cost.usd for cost in listed if cost.usd is not None]
        return cls(
            requests=sum(cost.requests for cost in listed),
            prompt_tokens=sum(cost.prompt_tokens for cost in listed),
            completion_tokens=sum(cost.completion_tokens for cost in listed),
            usd=sum(prices) if len(prices) == len(listed) else None,
        )


@dataclass(frozen=True)
class Answer:
    """A class's texts, where they come from, and what they cost."""

    texts: tuple[str, ...]
    provenance: dict[str, str]
    cost: LlmCost


def instruction_of(spec: DescribeSpec) -> Instruction:
    """The request's template: the repository's, or the user's own."""
    return load_instruction(Path(spec.instruction) if spec.instruction else PROMPTS_FOLDER / "describe.md")


def ask_class(spec: DescribeSpec, prompts: PromptSet, name: str, api_key: SecretStr | None) -> Answer:
    """describe.n descriptions of class `name`. A local server may need no key. A class counts as one request at a time until
    its texts are complete, repair and retries included. DescriptionError names the class."""
    instruction = instruction_of(spec)
    prompt = next(prompt for prompt in prompts.classes if prompt.name == name)
    request = instruction.fill(prompts, prompt, spec.n)
    with _request_limit(spec), Chat(spec, api_key) as chat:
        try:
            answer = request_descriptions(chat, request, prompts.description_prefix(name), spec.n)
        except DescriptionError as error:
            raise DescriptionError(f"class {name!r}: {error}") from None
    provenance = {"model": answer.model, "date": f"{datetime.now(UTC):%Y-%m-%d}", "instruction": instruction.digest}
    return Answer(answer.texts, provenance, LlmCost.of(answer.usage, spec))


def asked_provenance(spec: DescribeSpec) -> dict[str, str]:
    """What is the same for all classes of a stage."""
    provenance = {"provider": spec.provider, "server": spec.base_url or OPENAI_URL, "model asked for": spec.model}
    if spec.temperature is not None:
        provenance["temperature"] = f"{spec.temperature:g}"
    return provenance


_semaphores: dict[tuple[str | None, int], BoundedSemaphore] = {}
_lock = Lock()


def _request_limit(spec: DescribeSpec) -> BoundedSemaphore:
    """Shared by all threads of this process that ask the same server under the same limit."""
    with _lock:
        return _semaphores.setdefault((spec.base_url, spec.concurrency), BoundedSemaphore(spec.concurrency))
