"""An S3 server of its own process (moto's), and buckets on it with their addresses."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["new_address", "s3_server"]

PATIENCE = 60.0  # seconds until it answers
KEYS = {"AWS_ACCESS_KEY_ID": "a-test's-key", "AWS_SECRET_ACCESS_KEY": "a-test's-secret", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server meanwhile, and point this process' environment at it → its address."""
    pytest.importorskip("boto3")
    pytest.importorskip("moto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        try:
            _wait(server, port)
            yield url
        finally:
            server.kill()
            server.wait()


def new_address() -> str:
    """An empty store's address in a bucket of its own."""
    import boto3

    bucket = f"bucket-{secrets.token_hex(4)}"
    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket=bucket)
    client.close()
    return f"s3://{bucket}/some/runs"


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert server.poll() is None and time.monotonic() < deadline, "moto's server does not answer"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
