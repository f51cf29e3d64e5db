"""An OpenAI-compatible server, one request at a time, through the `openai` package (imported when it is needed).

The package tries again by itself after 408, 409, 429, 5xx, silence and broken connections: with exponential back-off, or as
long as Retry-After says, up to two minutes. Here its errors become one kind, and the API key is kept out of all of them
(key_guard.py) and off unencrypted networks (key_transport.py). What a reply may cost is bounded (bounded_client.py).
"""

from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import DescriptionError, SettingError
from excel_core.proxies import require_usable_proxies
from excel_core.text.key_guard import KeyGuard
from excel_core.text.key_transport import is_plain_http, require_safe_transport

__all__ = ["Chat", "Message", "Reply", "Usage"]

OPENAI_URL = "https://api.openai.com/v1"  # given explicitly: the package would follow the variable OPENAI_BASE_URL
NO_KEY = "none"  # for local servers, which need no key; the package does
MAX_SERVER_CHARACTERS = 500  # of a server's own words in a message
WRONG_ADDRESS = "describe.base_url is where /chat/completions follows; it mostly ends with /v1"
HOLDS_KEY = "the reply holds the API key and is refused; do not trust this server"

Message = dict[str, str]  # role, content


@dataclass(frozen=True)
class Usage:
    """The cost of requests: answered requests, tokens read and tokens written, as the server counts them."""

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
    """The model's whole answer, the model's name as the server gives it, the cost, and what it thought aloud beside the answer,
    where the server tells."""

    content: str
    model: str
    usage: Usage
    reasoning: str = ""


class Chat:
    """Requests to the server of `spec`; use as a context. SettingError for a key that no header can carry, or that would go
    to another machine over plain HTTP."""

    def __init__(self, spec: DescribeSpec, key: SecretStr | None) -> None:
        from openai import OpenAI

        from excel_core.text.bounded_client import BoundedClient

        key_text = key.get_secret_value() if key else NO_KEY
        if not (key_text.isascii() and key_text.isprintable() and " " not in key_text):
            raise SettingError("the API key must be printable ASCII without spaces; the one found is not")
        require_safe_transport(spec, key)
        if not is_plain_http(spec):  # over which no proxy is used
            require_usable_proxies()
        self.spec = spec
        self._guard = KeyGuard(key_text)
        self._replies = ""  # of this conversation: a key may come in pieces
        self._http = BoundedClient(spec.timeout, is_plain_http(spec))
        self._client = OpenAI(
            api_key=key_text, base_url=spec.base_url or OPENAI_URL, timeout=spec.timeout, max_retries=spec.retries,
            http_client=self._http,
        )  # fmt: skip

    def __enter__(self) -> "Chat":
        return self

    def __exit__(self, *error: Any) -> None:
        self._client.close()

    def ask(self, messages: list[Message], response_format: dict[str, Any] | None) -> Reply:
        """The answer to a conversation. DescriptionError where there is none, it is refused or cut off, or holds the key."""
        request: dict[str, Any] = {"model": self.spec.model, "messages": messages}
        if response_format is not None:
            request["response_format"] = response_format
        if self.spec.temperature is not None:
            request["temperature"] = self.spec.temperature
        completion = self._completion(request)
        if isinstance(completion, DescriptionError):
            # Raised here, outside the except clause: the package's error, which holds the request's headers and so the key,
            # must not become its __context__.
            raise completion
        return self._reply(completion)

    def _completion(self, request: dict[str, Any]) -> Any:
        """The server's answer as the package reads it, or the error to raise."""
        import openai

        where = f"{self.spec.base_url or OPENAI_URL} ({self.spec.model})"
        try:
            raw = self._client.chat.completions.with_raw_response.create(**request)
            self._replies += raw.text
            if self._guard.holds(self._replies):
                return DescriptionError(f"{where}: {HOLDS_KEY}")
            return raw.parse()
        except openai.APIConnectionError as error:
            if self._http.cut_off or isinstance(error, openai.APITimeoutError):
                return DescriptionError(f"{where}: no answer in {self.spec.timeout:g} s, {self._tries()}; see describe.timeout")
            cause = error.__cause__ or error
            return DescriptionError(f"{where}: no connection, {self._tries()}: {self._hidden(str(cause))}")
        except openai.APIStatusError as error:
            words = self._hidden(_server_words(error))
            return DescriptionError(f"{where}: status {error.status_code}: {words}{self._advice(error)}")
        except Exception as error:  # the package raises many kinds over a body that is no chat completion
            return DescriptionError(f"{where}: the answer is not that of a chat completion: {self._hidden(str(error))}")

    def _reply(self, completion: Any) -> Reply:
        """The answer's one choice. Servers leave out fields, so every field is read with a default."""
        model = self.spec.model
        choices = getattr(completion, "choices", None)
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = getattr(choice, "message", None)
        if message is None:
            advice = f"; {WRONG_ADDRESS}" if isinstance(completion, str) else ""  # a page
            words = self._hidden(str(completion))
            raise DescriptionError(f"{model}: the answer is not that of a chat completion: {words}{advice}")
        content, refusal = getattr(message, "content", None), getattr(message, "refusal", None)
        reason = getattr(choice, "finish_reason", None)
        answer = f"{_text_of(content)} {refusal} {_reasoning(message)} {getattr(completion, 'model', None)}"
        if self._guard.holds(answer):
            raise DescriptionError(f"{model}: {HOLDS_KEY}")
        if refusal or reason == "content_filter":
            raise DescriptionError(
                f"{model} refuses: {self._hidden(str(refusal or 'its content filter'))}; change the instruction"
            )
        if reason == "length":
            raise DescriptionError(f"{model}: the reply is cut off at the model's length limit; lower describe.n")
        counts = getattr(completion, "usage", None)
        usage = Usage(1, _count(counts, "prompt_tokens"), _count(counts, "completion_tokens"))
        named_model = self._hidden(str(getattr(completion, "model", None) or ""))
        return Reply(_text_of(content), named_model or model, usage, _reasoning(message))

    def _hidden(self, text: str) -> str:
        """A server's words for a message: without the key, on one line, shortened."""
        text = self._guard.hidden(text)
        text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        return text if len(text) <= MAX_SERVER_CHARACTERS else f"{text[:MAX_SERVER_CHARACTERS]}…"

    def _tries(self) -> str:
        return f"with up to {self.spec.retries} retries"

    def _advice(self, error: Any) -> str:
        if 300 <= error.status_code < 400:
            place = self._hidden(error.response.headers.get("location", "nowhere"))
            return (
                f"; it redirects to {place}, where the key is not sent; if you trust that place, name it in describe.base_url"
            )
        if error.status_code == 404 and not isinstance(error.body, dict):
            return f"; {WRONG_ADDRESS}"
        if error.status_code in (401, 403):
            return "; check the API key"
        if (
            error.status_code in (400, 415, 422, 500, 501)
            and self.spec.structured != "text"
            and (error.status_code == 400 or "response_format" in str(error.body))
        ):
            return f"; a server that does not know describe.structured={self.spec.structured} takes another one"
        return f", {self._tries()}" if error.status_code == 429 or error.status_code >= 500 else ""


def _count(counts: Any, name: str) -> int:
    count = getattr(counts, name, None)
    return count if isinstance(count, int) else 0


def _text_of(content: Any) -> str:
    """A message's text, which some servers send in parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text")]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _reasoning(message: Any) -> str:
    """What the model thought, as vLLM, LM Studio (reasoning_content), OpenRouter and Ollama (reasoning) tell it."""
    thoughts = (getattr(message, name, None) for name in ("reasoning_content", "reasoning"))
    return next((text for text in thoughts if isinstance(text, str) and text), "")


def _server_words(error: Any) -> str:
    """A server's own words about an error, and those of the provider behind it."""
    body = error.body
    if not isinstance(body, dict):
        return str(body or error.message)
    message, details = body.get("message") or body.get("detail"), body.get("metadata")
    raw = details.get("raw") if isinstance(details, dict) else None
    words = str(message or error.message)
    return f"{words} ({raw})" if isinstance(raw, str) and raw else words
