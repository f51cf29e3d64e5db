"""Over plain HTTP a key goes to this machine alone."""

import os
import socket
import subprocess
import sys

import pytest
from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import SettingError
from excel_core.text.chat import Chat
from excel_core.text.key_transport import INSECURE_HTTP, require_encrypted, require_safe_transport
from tests.conftest import ROOT

KEY = SecretStr("sk-Excel-Test-0123456789abcdef")


def _resolves(monkeypatch, **addresses):
    """Names that resolve to these addresses; whatever else does not resolve."""
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        found = addresses.get(name.partition(".")[0], [name] if name[:1].isdigit() or ":" in name else [])
        return [answer for address in found for answer in real(address, port, *args, **kwargs)] or _unknown()

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def _unknown():
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.org/v1",
        "https://10.0.0.7/v1",
        "http://127.0.0.1:11434/v1",
        "http://127.3.2.1/v1",
        "http://[::1]:8000/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://localhost:11434/v1",
        "http://mine:1234/v1",
    ],
)
def test_over_tls_or_to_this_machine_it_goes(url, monkeypatch):
    _resolves(monkeypatch, localhost=["127.0.0.1", "::1"], mine=["127.0.1.1"])
    require_safe_transport(DescribeSpec(base_url=url), KEY)
    require_safe_transport(DescribeSpec(), KEY)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.7:8000/v1",
        "http://[fe80::1]/v1",
        "http://[::ffff:10.0.0.7]/v1",
        "http://0.0.0.0:8000/v1",
        "http://there/v1",
        "http://both/v1",  # sometimes here, sometimes there
        "http://localhost.example.org/v1",
        "http://127.0.0.1.example.org/v1",
        "http://nowhere/v1",
        "http://127.0.0.1:99999999/v1",
        "http://127.0.0.1\\.example.org/v1",
        "http:///v1",
    ],
)
def test_to_another_machine_it_does_not_unless_allowed(url, monkeypatch):
    _resolves(monkeypatch, localhost=["127.0.0.1"], there=["10.0.0.7"], both=["127.0.0.1", "10.0.0.7"])
    if "example" in url:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: [(2, 1, 6, "", ("93.184.216.34", 80))])
    with pytest.raises(SettingError, match="plain http.*describe.insecure_http=true") as refused:
        Chat(DescribeSpec(base_url=url), KEY)
    assert KEY.get_secret_value() not in str(refused.value)
    require_safe_transport(DescribeSpec(base_url=url, insecure_http=True), KEY)
    require_safe_transport(DescribeSpec(base_url=url), None)  # a server that needs no key


@pytest.mark.parametrize(
    "url", ["https://10.0.0.7", "http://127.0.0.1:8080/x", "http://localhost", "http://Studio:8080", "http://10.0.0.8"]
)
def test_other_keys_go_over_tls_to_this_machine_and_to_named_hosts(url, monkeypatch):
    _resolves(monkeypatch, localhost=["127.0.0.1"], Studio=["10.0.0.7"])
    monkeypatch.setenv(INSECURE_HTTP, " studio,10.0.0.8")
    require_encrypted(url, "its key", "--there")


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7:1/x", "http://u:geheim@studio2", "http://studio.example", "//studio", "", "ftp://studio3"]
)
def test_other_keys_go_nowhere_else_in_plain_text(url, monkeypatch):
    _resolves(monkeypatch, studio=["10.0.0.7"])
    monkeypatch.setenv(INSECURE_HTTP, "studio9,,10.0.0.70")
    with pytest.raises(SettingError, match=r"--there .*: its key would go to another machine.*EXCEL_INSECURE_HTTP") as refused:
        require_encrypted(url, "its key", "--there")
    assert "geheim" not in str(refused.value)


HUB = """
from excel_core.errors import ExcelError
from flows.request import RunRequest
try:
    RunRequest.checked(preset="photos", clip="{clip}", settings={settings}).spec()
except ExcelError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("clip", "settings", "environment", "is_refused"),
    [
        ("ViT-B-16:openai", [], {"HF_TOKEN": "hf_geheim"}, True),
        ("excel-tiny", ["refine.votes.enabled=true", "refine.votes.masks=/x"], {"HF_TOKEN": "hf_geheim"}, False),
        ("ViT-B-16:openai", [], {}, False),
        ("ViT-B-16:openai", [], {"HF_TOKEN": "hf_geheim", "EXCEL_INSECURE_HTTP": "192.0.2.1"}, False),
    ],
)
def test_the_hubs_token_stays_here_where_its_mirror_is_not_encrypted(tmp_path, clip, settings, environment, is_refused):
    """Before work, in a process of its own: the hub's client reads its address when it is imported."""
    there = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "EXCEL_"))}
    there |= {"HF_ENDPOINT": "http://192.0.2.1", "HF_HOME": str(tmp_path)} | environment
    code = HUB.format(clip=clip, settings=settings)
    ran = subprocess.run([sys.executable, "-c", code], env=there, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and "geheim" not in ran.stdout + ran.stderr
    refused = "HF_ENDPOINT http://192.0.2.1: the token of the Hugging Face Hub would go to another machine over plain http"
    assert (refused in ran.stdout) == is_refused
