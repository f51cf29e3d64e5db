"""What stands before a Prefect server that excel starts: it answers this machine's own names and pages of its own origin.

Prefect itself asks for the key. This refuses, before Prefect sees them, requests that a page of another origin makes through
the user's browser, those under a foreign name for 127.0.0.1 (DNS rebinding), and being shown in a frame of another page. A key
outside ASCII is refused here too: Prefect would answer with an error of its own. And the UI's own pages may not report to
others: before its user has signed in, Prefect's UI does not know that it should not.

Reports (flows/local/reports.py) lie behind the same check of names, with headers of their own.
"""

import base64
import re
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from flows.local.reports import PREFIX

__all__ = ["App", "guarded"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?")
POLICY = (
    "connect-src 'self'",  # not Prefect's analytics
    "script-src 'self' 'unsafe-eval' blob:",  # the UI's graphs compile their shaders' code
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
)
HEADERS = {
    "x-frame-options": "DENY",
    "content-security-policy": "; ".join(POLICY),
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
FOREIGN = b"This server answers pages of its own origin, under 127.0.0.1 and localhost."
NO_KEY = b"Unauthorized"


def guarded(app: App, reports: App | None = None) -> App:
    """`app`, an ASGI application, behind these checks; `reports` answers what is below PREFIX."""
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def checked(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif reports is not None and scope["type"] == "http" and scope["path"].startswith(PREFIX) and _is_own(scope, "null"):
            await reports(scope, receive, send)
        elif not _is_own(scope):
            await _refuse(scope, send_with_headers, 403, FOREIGN)
        elif not _may_be_keys(scope):
            await _refuse(scope, send_with_headers, 401, NO_KEY)
        else:
            await app(scope, receive, send_with_headers)

    return checked


async def _refuse(scope: Message, send: Send, status: int, words: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
    else:
        await send({"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": words})


def _is_own(scope: Message, *more: str) -> bool:
    """Whether Host is a name of this machine, and Origin, where a browser sends one, that very host or one of `more`."""
    hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
    return len(hosts) == 1 and OWN_HOST.fullmatch(hosts[0]) is not None and set(origins) <= {f"http://{hosts[0]}", *more}


def _may_be_keys(scope: Message) -> bool:
    """Whether what the headers give as keys is ASCII, as every key is. What is no base64 Prefect refuses itself."""
    given = [value.rpartition(b" ")[2] for name, value in scope["headers"] if name.lower() == b"authorization"]
    with suppress(ValueError):
        return all(base64.b64decode(key).isascii() for key in given)
    return True


def _values(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for key, value in scope["headers"] if key.lower() == name]
