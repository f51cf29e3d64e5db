"""Whether an API key may go to a server: over TLS to any, over plain HTTP to this machine alone."""

import socket
from ipaddress import IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import SettingError

__all__ = ["is_plain_http", "is_this_machine", "require_safe_transport"]


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
