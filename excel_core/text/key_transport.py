"""Whether a key may go to a server: over TLS to any; over plain HTTP to this machine, and where the user allows it by name."""

import os
import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import SettingError

__all__ = [
    "INSECURE_HTTP", "is_plain_http", "is_this_machine", "is_web_address", "require_encrypted", "require_encrypted_hub",
    "require_safe_transport",
]  # fmt: skip

INSECURE_HTTP = "EXCEL_INSECURE_HTTP"  # environment: hosts with commas that keys may go to over plain HTTP


def require_safe_transport(spec: DescribeSpec, key: SecretStr | None) -> None:
    """SettingError where `key` would cross a network unencrypted and the spec does not allow it by name."""
    if key is None or not key.get_secret_value() or not is_plain_http(spec) or spec.insecure_http:
        return
    if not is_this_machine(urlsplit(spec.base_url or "")):
        raise SettingError(
            f"describe.base_url={spec.base_url}: the API key would go to another machine over plain http, where anybody on the "
            "way can read it; use https://, or unset the key if that server needs none, or allow it: "
            "--set describe.insecure_http=true"
        )


def is_web_address(url: str) -> bool:
    """Whether `url` is http://HOST[:PORT]… or https://HOST[:PORT]… with a port that can be one."""
    try:
        address = urlsplit(url)
        return address.scheme.lower() in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        return False


def is_plain_http(spec: DescribeSpec) -> bool:
    """Whether requests to the spec's server are not encrypted."""
    return spec.base_url is not None and urlsplit(spec.base_url).scheme.lower() != "https"


def is_this_machine(url: SplitResult) -> bool:
    """Whether every address of a URL's host is a loopback address. A name that cannot be resolved is another machine's."""
    try:
        host, port = url.hostname or "", url.port or 80
        addresses = {
            str(address[0]).partition("%")[0] for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        }
    except (OSError, ValueError):  # unknown, or no port: UnicodeError is a ValueError
        return False
    return bool(addresses) and all(map(_is_loopback, addresses))


def _is_loopback(address: str) -> bool:
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def require_encrypted(url: str, key: str, setting: str) -> None:
    """SettingError where what `key` names would go to `url`, which `setting` names, over plain HTTP to another machine whose
    host EXCEL_INSECURE_HTTP does not list. For every key but the language model's, which has a setting of the run."""
    address = urlsplit(url)
    if address.scheme.lower() == "https" or is_this_machine(address):
        return
    host = (address.hostname or "").casefold()
    if not host or host not in (name.strip().casefold() for name in os.environ.get(INSECURE_HTTP, "").split(",")):
        shown = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
        raise SettingError(
            f"{setting} {shown}: {key} would go to another machine over plain http, where anybody on the way can read it; use "
            f"https://, or allow this host by name: {INSECURE_HTTP}={host}"
        )


def require_encrypted_hub() -> None:
    """`require_encrypted` of the Hugging Face Hub, whose client sends the user's token with every download."""
    if not os.environ.get("HF_ENDPOINT"):
        return
    from huggingface_hub import constants, get_token

    if not constants.HF_HUB_OFFLINE and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and get_token():
        require_encrypted(constants.ENDPOINT, "the token of the Hugging Face Hub", "HF_ENDPOINT")
