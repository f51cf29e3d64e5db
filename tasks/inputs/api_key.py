"""The API key of the run at hand, in memory alone: it goes from the flow to the threads that ask by their context, and
into no parameter, file, message or environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import SettingError

__all__ = ["VARIABLE", "api_key", "key_in_environment", "using_key"]

VARIABLE = "OPENAI_API_KEY"
_key: ContextVar[SecretStr | None] = ContextVar("api key", default=None)


@contextmanager
def using_key(key: SecretStr | None) -> Iterator[None]:
    """What `api_key` gives in this context, and in threads that start in it."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)


def api_key(spec: DescribeSpec) -> SecretStr | None:
    """The run's key, or the environment's; None for a server of one's own that may need none."""
    return _key.get() or key_in_environment(spec)


def key_in_environment(spec: DescribeSpec) -> SecretStr | None:
    """The variable's value, None where it is empty and `spec` names another server than OpenAI's; else SettingError."""
    value = os.environ.get(VARIABLE, "").strip()
    if not value and spec.base_url is None:
        raise SettingError(
            f"describe.provider=openai: no API key; set {VARIABLE} in the environment of what runs the flow, or name a Prefect "
            "Secret block: --set describe.secret=NAME; a server that needs none: --set describe.base_url=URL"
        )
    return SecretStr(value) if value else None
