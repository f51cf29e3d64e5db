"""A chat server over real HTTP that answers, or misbehaves, as its script says.

    with chat_server(Script(...)) as server:      server.url, server.requests
A script maps a class's name to what happens at each request about it, in turn; after its end every answer is good.
"""

import json
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["KEY", "MODEL", "ChatServer", "answer", "chat_server", "completion", "good_texts", "says", "status"]

KEY = "sk-Excel-Test-0123456789abcdef"
MODEL = "tester-1-2026-11-01"  # as the server names it
USAGE = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
WORDS = ("round", "square", "green", "wooden", "striped", "shiny", "small", "tall", "flat", "curved")


@dataclass
class Seen:
    """A request: what it is about, its body and headers, and when it came and went (monotonic seconds)."""

    about: str
    body: dict[str, Any]
    headers: dict[str, str]
    came: float
    went: float = 0.0


Deed = Callable[["_Handler", Seen], None]


@dataclass
class ChatServer:
    """What a test reads of the server; `inside` is the most requests that it saw at a time."""

    url: str
    script: dict[str, list[Deed]]
    pause: float = 0.0  # seconds that every answer takes
    requests: list[Seen] = field(default_factory=list)
    inside: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def about(self, name: str) -> list[Seen]:
        """The requests about one class, in order."""
        return [seen for seen in self.requests if seen.about == name]

    def next_deed(self, seen: Seen) -> Deed:
        with self.lock:
            self.requests.append(seen)
            waiting = self.script.get(seen.about, [])
            return waiting.pop(0) if waiting else answer()


def good_texts(beginning: str, n: int, start: int = 0) -> list[str]:
    """n distinct descriptions of the right form."""
    numbers = range(start, start + n)
    return [f"{beginning}has a {WORDS[i % 10]} side and a {WORDS[i // 10 % 10]} back number {i}." for i in numbers]


def completion(content: str | None, **changes: Any) -> dict[str, Any]:
    """The body of an answer; `changes` to its message and choice."""
    message = {"role": "assistant", "content": content, "refusal": changes.get("refusal")}
    choice = {"index": 0, "message": message, "finish_reason": changes.get("finish_reason", "stop")}
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": changes.get("model", MODEL)}
    return whole | {"choices": [choice], "usage": USAGE}


def says(texts: Any, **changes: Any) -> Deed:
    """Answer with {"descriptions": texts}; a function gets the beginning asked for and the number."""

    def deed(handler: "_Handler", seen: Seen) -> None:
        found = texts(*_asked_for(seen)) if callable(texts) else texts
        handler.send(200, completion(json.dumps({"descriptions": found}), **changes))

    return deed


def answer(**changes: Any) -> Deed:
    """As a good model does: as many as asked for, each new in the conversation."""
    return says(lambda beginning, n, turn: good_texts(beginning, n, 1000 * turn), **changes)


def content(text: str | None, **changes: Any) -> Deed:
    """Answer with this content as it is."""
    return lambda handler, seen: handler.send(200, completion(text, **changes))


def status(code: int, body: Any = None, **headers: str) -> Deed:
    """An error with that body: bytes are sent as they are."""
    given = {"error": {"message": "no", "type": "test"}} if body is None else body
    return lambda handler, seen: handler.send(code, given, {name.replace("_", "-"): value for name, value in headers.items()})


def hang(handler: "_Handler", seen: Seen) -> None:
    """Say nothing until the test ends."""
    handler.chat.ended.wait(60)
    handler.close_connection = True


def reset(handler: "_Handler", seen: Seen) -> None:
    """Break the connection with RST."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def _asked_for(seen: Seen) -> tuple[str, int, int]:
    """Beginning, number and turn (0 for the first request, 1 for the repair)."""
    users = [message["content"] for message in seen.body["messages"] if message["role"] == "user"]
    beginning = re.search(r"`(.* it )…`", users[0])
    number = re.search(r"Write (\d+)", users[-1])
    assert beginning and number, users
    return beginning[1], int(number[1]), len(users) - 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chat: ChatServer

    def do_POST(self) -> None:
        came, chat = time.monotonic(), self.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            return self.send(404, {"error": {"message": f"no {self.path}"}})
        named = re.search(r'object class "(.*?)"', body["messages"][1]["content"])
        seen = Seen(named[1] if named else "", body, {k.lower(): v for k, v in self.headers.items()}, came)
        with chat.lock:
            chat.now += 1
            chat.inside = max(chat.inside, chat.now)
        try:
            deed = chat.next_deed(seen)
            time.sleep(chat.pause)
            deed(self, seen)
        finally:
            with chat.lock:
                chat.now -= 1
            seen.went = time.monotonic()

    def send(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """One response; what is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Nothing: a test's output is its own."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that gave up is no matter."""


@contextmanager
def chat_server(
    script: dict[str, list[Deed]] | None = None, pause: float = 0.0, tls: ssl.SSLContext | None = None
) -> Iterator[ChatServer]:
    """The server at a free port of this machine; with `tls` it speaks HTTPS, whatever its url says."""
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    chat = ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1", script or {}, pause)
    handler.chat = chat
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        chat.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
