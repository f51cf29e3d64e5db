"""A Hugging Face Hub in one process: as much of its HTTP as a commit needs. It keeps what it is sent."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """token: the only one it takes. files: what was committed. refuse: status and words that it answers commits with."""

    address: str = ""
    token: str = "hf_right"
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    refuse: tuple[int, str] | None = None


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a loopback port."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def _answer(self, status: int, content: object = None, **headers: str) -> None:
        body = json.dumps(content).encode() if content is not None else b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        self.hub.uploads[self.path.rpartition("/")[2]] = self._body()
        self._answer(200)

    def do_GET(self) -> None:
        self.hub.seen.append(f"GET {self.path}")
        self._answer(200, {"sha": "0" * 40, "siblings": [], "id": "user/dogs", "private": True, "tags": []})

    def do_POST(self) -> None:
        self.hub.seen.append(f"POST {self.path}")
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, {"error": "Invalid username or password."}, X_Error_Message="Invalid username or password.")
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.hub.private.setdefault(name, asked.get("private") or asked.get("visibility") == "private")
            self._answer(200, {"url": f"{self.hub.address}/{name}", "id": name})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": _mode(f["path"]), "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            for each in objects:
                each["actions"] = {"upload": {"href": f"{self.hub.address}/upload/{each['oid']}", "header": {}}}
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path and self.hub.refuse:
            self._answer(self.hub.refuse[0], {"error": self.hub.refuse[1]})
        elif "/commit/" in self.path:
            self._commit(body)
        else:
            self._answer(200, {})

    def _commit(self, body: bytes) -> None:
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.hub.uploads[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                self.hub.files[value["path"]] = content
        name = re.sub(r"/commit/.*", "", self.path).removeprefix("/api/models/")
        self._answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/1", "commitOid": "1" * 40, "pullRequestUrl": None})


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".onnx")) else "regular"
