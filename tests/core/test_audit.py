"""`make check` looks up known vulnerabilities: real pip-audit, asked about our pins, with a service of our own."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.conftest import ROOT

ADVISORY = {
    "id": "TEST-1",
    "summary": "runs what it reads",
    "affected": [
        {
            "package": {"name": "pillow", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "999.0"}]}],
        }
    ],
}


@contextmanager
def service(advisories: dict[str, dict[str, object]]) -> Iterator[str]:
    """A service that speaks OSV's protocol and knows `advisories` by package → its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            body = json.dumps({"vulns": [advisories[asked]]} if asked in advisories else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(url: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci" / "audit.py"), "-s", "osv", "--osv-url", url, *more]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_finding_is_a_line_and_a_failure_unless_it_is_waived() -> None:
    with service({"pillow": ADVISORY}) as url:
        ran, waived = audit(url), audit(url, "--ignore-vuln", "TEST-1")
    assert ran.returncode == 1
    finding, summary = ran.stdout.splitlines()
    assert finding.startswith("pillow ") and finding.endswith(": TEST-1; fixed in: 999.0")
    assert summary.startswith("pip-audit: 1 known vulnerabilities in ")
    assert waived.returncode == 0 and waived.stdout.startswith("pip-audit: 0 known")


def test_every_pin_is_asked_about() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    with service({}) as url:
        ran = audit(url)
    assert (ran.returncode, ran.stdout) == (0, f"pip-audit: 0 known vulnerabilities in {len(pins)} packages\n")


def test_a_service_that_does_not_answer_is_one_line_and_no_failure() -> None:
    ran = audit("http://127.0.0.1:9/v1/query")
    assert ran.returncode == 0 and len(ran.stdout.splitlines()) == 1
    assert ran.stdout.startswith("pip-audit: no package was looked up, the service does not answer: ")
