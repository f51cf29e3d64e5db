"""The HTTP client that `openai` uses here: what a server may cost in time and memory, and where it may lead.

* A reply that is not whole after `seconds` is cut off, however steadily it drips. The package's own limit is for silence.
* A reply of more than MAX_REPLY_BYTES, or a compressed one, is not read: a few kilobytes may unpack to gigabytes.
* Redirects are not followed: the address that a key may go to is the one in the settings.
* A 200 whose body tells of an error counts as that error (error_bodies.py).
* Over plain HTTP no proxy of the environment is used: it would see the key.
"""

import socket
from contextlib import suppress
from threading import Timer
from typing import Any

from openai import DefaultHttpxClient, OpenAIError

from excel_core.text.error_bodies import error_status

__all__ = ["MAX_REPLY_BYTES", "BoundedClient", "UnreadReplyError"]

MAX_REPLY_BYTES = 4 * 2**20  # a hundred descriptions have 40 kB; models that think aloud, some more
OPENED = (".connect_tcp.complete", ".start_tls.complete")  # events that bring a connection
REWRITTEN = ("transfer-encoding", "content-length", "content-encoding", "content-type")


class UnreadReplyError(OpenAIError):
    """A reply that is too large, or compressed."""


class BoundedClient(DefaultHttpxClient):
    """For one thread at a time. `cut_off`: whether the last request took longer than `seconds`."""

    def __init__(self, seconds: float, plain_http: bool) -> None:
        super().__init__(follow_redirects=False, trust_env=not plain_http)
        self.seconds, self.cut_off = seconds, False
        self._sockets: list[socket.socket] = []

    def send(self, request: Any, **options: Any) -> Any:
        """The whole reply, which is read already; what httpx raises, or UnreadReplyError."""
        request.headers["Accept-Encoding"] = "identity"
        request.extensions = {**request.extensions, "trace": self._note_connection}
        self.cut_off = False
        timer = Timer(self.seconds, self._cut_off)
        timer.daemon = True
        timer.start()
        try:
            response = super().send(request, **{**options, "stream": True})
            try:
                return self._whole(response)
            finally:
                response.close()
        finally:
            timer.cancel()

    def _note_connection(self, event: str, facts: dict[str, Any]) -> None:
        if event.endswith(OPENED):
            connection = facts["return_value"].get_extra_info("socket")
            self._sockets.append(connection)
            if self.cut_off:
                _shut(connection)

    def _cut_off(self) -> None:
        """From the timer's thread: whoever waits for one of the connections wakes, with an error of its own."""
        self.cut_off = True
        for connection in self._sockets:
            _shut(connection)

    def _whole(self, response: Any) -> Any:
        """The reply with its body, at most MAX_REPLY_BYTES."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise UnreadReplyError(f"the reply is compressed ({encoding[:20]}), which it was asked not to be; it is not read")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise UnreadReplyError(f"the reply is larger than {MAX_REPLY_BYTES >> 20} MiB; the rest is not read")
        if self.cut_off:  # and the body's end is the connection's, as far as the server says
            raise UnreadReplyError(f"the reply was not whole in {self.seconds:g} s")
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in REWRITTEN]
        # Without a character set: Python has some that unpack.
        headers.append(("content-type", response.headers.get("content-type", "").partition(";")[0]))
        status, content = error_status(response.status_code, bytes(body))
        return type(response)(status, headers=headers, content=content, request=response.request)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # an SSLSocket's own is not for a second thread
