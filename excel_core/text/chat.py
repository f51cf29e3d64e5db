"""An OpenAI-compatible server, one request at a time, through the `openai` package (imported when it is needed).

The package tries again by itself after 408, 409, 429, 5xx, silence and broken connections: with exponential back-off, or as
long as Retry-After says, up to two minutes. Here its errors become one kind, and the API key is kept out of all of them.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import DescriptionError, SettingError

__all__ = ["Chat", "Message", "Reply", "Usage"]

OPENAI = "https://api.openai.com/v1"  # said outright: the package would follow the variable OPENAI_BASE_URL
PLACEHOLDER = "none"  # for servers of one's own, which ask for no key; the package does
SECRET_LENGTH = 8  # what is shorter ("EMPTY", "ollama") is a placeholder too, and may turn up in any reply
LONGEST_SAYING = 500  # characters of a server's own words in a message
HOLDS_KEY = "the reply holds the API key and is refused; do not trust this server"

Message = dict[str, str]  # role, content


@dataclass(frozen=True)
class Usage:
    """What was asked and spent: answered requests, tokens read and tokens written, as the server counts them."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True)
class Reply:
    """The model's whole answer, which model it says it is, and what it cost."""

    content: str
    model: str
    usage: Usage


class Chat:
    """Requests to the server of `spec`; use as a context. SettingError for a key that no header can carry."""

    def __init__(self, spec: DescribeSpec, key: SecretStr | None) -> None:
        from openai import OpenAI

        self.spec = spec
        self._key = key.get_secret_value() if key else PLACEHOLDER
        if not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise SettingError("the API key must be printable ASCII without spaces; the one found is not")
        # In any case, and with any of its letters escaped as in JSON, once or again.
        letters = (rf"(?:{re.escape(sign)}|\\+u{ord(sign):04x})" for sign in self._key)
        self._trace = re.compile("".join(letters), re.IGNORECASE) if len(self._key) >= SECRET_LENGTH else None
        self._client = OpenAI(
            api_key=self._key, base_url=spec.base_url or OPENAI, timeout=spec.timeout, max_retries=spec.retries
        )

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, *error: Any) -> None:
        self._client.close()

    def ask(self, messages: list[Message], response_format: dict[str, Any] | None) -> Reply:
        """The answer to a conversation. DescriptionError where there is none, it is refused or cut off, or holds the key."""
        wanted: dict[str, Any] = {"model": self.spec.model, "messages": messages}
        if response_format is not None:
            wanted["response_format"] = response_format
        if self.spec.temperature is not None:
            wanted["temperature"] = self.spec.temperature
        found = self._completion(wanted)
        if isinstance(found, DescriptionError):
            raise found  # out here the package's error, which knows the request's headers, hangs on no part of it
        return self._reply(found)

    def _completion(self, wanted: dict[str, Any]) -> Any:
        """The server's answer as the package reads it, or the error to raise."""
        import openai

        where = f"{self.spec.base_url or OPENAI} ({self.spec.model})"
        try:
            raw = self._client.chat.completions.with_raw_response.create(**wanted)
            if self._holds_key(raw.text):
                return DescriptionError(f"{where}: {HOLDS_KEY}")
            return raw.parse()
        except openai.APITimeoutError:
            return DescriptionError(f"{where}: no answer in {self.spec.timeout:g} s, {self._tries()}; see describe.timeout")
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            return DescriptionError(f"{where}: no connection, {self._tries()}: {self._hidden(str(cause))}")
        except openai.APIStatusError as error:
            saying = self._hidden(_saying(error))
            return DescriptionError(f"{where}: status {error.status_code}: {saying}{self._advice(error)}")
        except (openai.OpenAIError, ValueError) as error:
            return DescriptionError(f"{where}: the answer is not that of a chat completion: {self._hidden(str(error))}")

    def _reply(self, found: Any) -> Reply:
        """The answer's one choice. Servers leave out fields, so nothing is taken to be there."""
        model = self.spec.model
        choices = getattr(found, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            raise DescriptionError(f"{model}: the answer is not that of a chat completion: {self._hidden(str(found))}")
        content, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
        reason = getattr(choice, "finish_reason", None)
        if self._holds_key(f"{content} {refusal} {getattr(found, 'model', None)}"):
            raise DescriptionError(f"{model}: {HOLDS_KEY}")
        if refusal or reason == "content_filter":
            raise DescriptionError(
                f"{model} refuses: {self._hidden(str(refusal or 'its content filter'))}; change the instruction"
            )
        if reason == "length":
            raise DescriptionError(f"{model}: the reply is cut off at the model's length limit; lower describe.n")
        used = getattr(found, "usage", None)
        usage = Usage(1, _count(used, "prompt_tokens"), _count(used, "completion_tokens"))
        said = self._hidden(str(getattr(found, "model", None) or ""))
        return Reply(content if isinstance(content, str) else "", said or model, usage)

    def _holds_key(self, text: str) -> bool:
        return self._trace is not None and self._trace.search(text) is not None

    def _hidden(self, text: str) -> str:
        """A server's words, for a message: without the key, on one line, and not too many."""
        if self._trace is not None:
            text = self._trace.sub("[API key]", text)
        text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        return text if len(text) <= LONGEST_SAYING else f"{text[:LONGEST_SAYING]}…"

    def _tries(self) -> str:
        return f"with up to {self.spec.retries} retries"

    def _advice(self, error: Any) -> str:
        if error.status_code in (401, 403):
            return "; check the API key"
        if error.status_code == 400 and self.spec.structured != "text":
            return f"; a server that does not know describe.structured={self.spec.structured} takes another one"
        return f", {self._tries()}" if error.status_code == 429 or error.status_code >= 500 else ""


def _count(used: Any, name: str) -> int:
    count = getattr(used, name, None)
    return count if isinstance(count, int) else 0


def _saying(error: Any) -> str:
    """A server's own words about an error."""
    body = error.body
    said = body.get("message") if isinstance(body, dict) else body
    return str(said or error.message)
