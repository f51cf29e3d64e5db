"""No proxy stands before this machine, whatever the user's environment says; the user's own entries stay."""

from urllib.request import getproxies_environment, proxy_bypass_environment

import pytest
from pydantic import SecretStr

from excel_core import proxies
from excel_core.config import DescribeSpec
from excel_core.errors import SettingError
from excel_core.proxies import LEFT_OUT, keep_loopback_direct, leave_out_socks
from excel_core.text.chat import Chat


@pytest.mark.parametrize(
    "given",
    [{}, {"NO_PROXY": ""}, {"NO_PROXY": "example.org, .intern"}, {"no_proxy": "example.org"}, {"NO_PROXY": "localhost"}],
)
def test_loopback_is_added_once(monkeypatch, given):
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HTTP_PROXY": "http://127.0.0.1:9", **given}.items():
        monkeypatch.setenv(name, value)
    before = {host: proxy_bypass_environment(host) for host in ("example.org", "a.intern", "other.org")}
    keep_loopback_direct()
    keep_loopback_direct()
    for host in ("127.0.0.1:4200", "127.0.0.1", "localhost:80"):
        assert proxy_bypass_environment(host), host
    assert {host: proxy_bypass_environment(host) for host in before} == before
    entries = getproxies_environment()["no"].split(",")
    assert len(entries) == len(set(entries))


def test_what_counts_is_kept():
    """A variable in small letters goes before one in capitals; a star stays a star."""
    environment = {"NO_PROXY": "a.org", "no_proxy": "b.org"}
    keep_loopback_direct(environment)
    assert environment["NO_PROXY"] == environment["no_proxy"] == "b.org,127.0.0.1,localhost,::1"
    star = {"NO_PROXY": "*"}
    keep_loopback_direct(star)
    assert star == {"NO_PROXY": "*"}


def test_a_socks_proxy_that_cannot_be_used_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(proxies, "find_spec", lambda name: None)
    environment = {"ALL_PROXY": "socks5://me:word@127.0.0.1:9", "https_proxy": "socks5h://x:1", "HTTP_PROXY": "http://x:1"}
    said = leave_out_socks(environment)
    assert said.startswith("ALL_PROXY, https_proxy: a socks proxy is left out") and "word" not in said
    assert environment == {"HTTP_PROXY": "http://x:1", LEFT_OUT: "ALL_PROXY, https_proxy"}
    assert leave_out_socks({"ALL_PROXY": "http://x:1"}) == ""


def test_a_socks_proxy_that_can_be_used_stays(monkeypatch):
    monkeypatch.setattr(proxies, "find_spec", lambda name: name)
    environment = {"ALL_PROXY": "socks5://x:1"}
    assert leave_out_socks(environment) == "" and environment == {"ALL_PROXY": "socks5://x:1"}


def test_nothing_goes_past_a_socks_proxy_to_another_machine(monkeypatch):
    monkeypatch.setattr(proxies, "find_spec", lambda name: None)
    monkeypatch.setenv(LEFT_OUT, "ALL_PROXY")
    with pytest.raises(SettingError, match="ALL_PROXY: a socks proxy needs the package socksio: pip install socksio"):
        Chat(DescribeSpec(provider="openai"), SecretStr("key"))
    with Chat(DescribeSpec(provider="openai", base_url="http://127.0.0.1:9/v1"), None):
        pass  # over which no proxy is used
