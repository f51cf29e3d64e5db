"""What stands before a Prefect server that excel starts: it answers this machine's own names and pages of its own origin.

Prefect itself asks for the key. This refuses, before Prefect sees them, requests that a page of another origin makes through
the user's browser, those under a foreign name for 127.0.0.1 (DNS rebinding), and being shown in a frame of another page. And
the UI's own pages may not report to others: before its user has signed in, Prefect's UI does not know that it should not.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["guarded"]

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
REFUSAL = b"This server answers pages of its own origin, under 127.0.0.1 and localhost."


def guarded(app: App) -> App:
    """`app`, an ASGI application, behind these checks."""
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def checked(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        elif _is_own(scope):
            await app(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
        else:
            await send_with_headers({"type": "http.response.start", "status": 403, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": REFUSAL})

    return checked


def _is_own(scope: Message) -> bool:
    """Whether Host is a name of this machine, and Origin, where a browser sends one, that very host."""
    hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
    return len(hosts) == 1 and OWN_HOST.fullmatch(hosts[0]) is not None and set(origins) <= {f"http://{hosts[0]}"}


def _values(scope: Message, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for key, value in scope["headers"] if key.lower() == name]
