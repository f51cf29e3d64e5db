"""A TCP proxy in front of a server, which can turn bad while connections are open, and good again."""

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["ANSWERS", "Proxy", "proxy"]

HEAD = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<b>down</b>\r\n"
ANSWERS = {
    "500": HEAD % b"500 Internal Server Error",
    "503": HEAD % b"503 Service Unavailable",
    "garbage": b"\x00\xff\x13\x37" * 64,
    "html": HEAD % b"200 OK",
}


class Proxy:
    """`fault`: "" passes everything on; "hang" answers nothing; "reset" breaks every connection; else a name of ANSWERS, which
    is what every request gets. Setting it breaks the connections there are, but for "hang", which keeps them open."""

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.connections = 0
        self._fault, self._target, self._listener = "", target, listener
        self._open: set[socket.socket] = set()
        self._ended = threading.Event()

    @property
    def fault(self) -> str:
        return self._fault

    @fault.setter
    def fault(self, fault: str) -> None:
        self._fault = fault
        if fault != "hang":
            for connection in list(self._open):
                _reset(connection)

    def serve(self) -> None:
        """Until `end`."""
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def end(self) -> None:
        """No connection stays open."""
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            _reset(connection)

    def _connect(self, client: socket.socket) -> None:
        self._open.add(client)
        with suppress(OSError, ValueError), client:
            if self._fault == "reset":
                _reset(client)
            elif self._fault in ANSWERS:
                client.recv(65536)
                client.sendall(ANSWERS[self._fault])
            elif self._fault == "hang":
                self._ended.wait()
            else:
                with socket.create_connection(self._target) as server:
                    self._open.add(server)
                    self._pass_on(client, server)
                    self._open.discard(server)
        self._open.discard(client)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        while not self._ended.is_set():
            ready, _, _ = select.select([client, server], [], [], 0.2)
            if self._fault == "hang":
                self._ended.wait()
            for source in ready:
                data = source.recv(65536)
                if not data:
                    return
                (server if source is client else client).sendall(data)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError, ValueError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


@contextmanager
def proxy(url: str) -> Iterator[Proxy]:
    """A proxy for the server at `url`, http://HOST:PORT."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        between = Proxy(listener, (host, int(port)))
        thread = threading.Thread(target=between.serve, daemon=True)
        thread.start()
        try:
            yield between
        finally:
            between.end()
            thread.join()
