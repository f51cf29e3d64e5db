"""A language model's server that misbehaves below the protocol: every fault ends in one line, in bounded time and memory."""

import gzip
import json
import resource
import ssl
import struct
import time
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from excel_core.config import DescribeSpec
from excel_core.errors import DescriptionError
from excel_core.text.chat import Chat
from tests.tasks.chat_server import KEY, chat_server, completion, content, reset, status

ASK = [{"role": "system", "content": "JSON"}, {"role": "user", "content": 'the object class "dog"'}]
MAX_GROWTH = 300 * 2**20  # bytes of this process over all faults together: a bomb below is a gigabyte or more
GOOD = json.dumps(completion('{"descriptions": []}')).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DRIP_SECONDS = 0.05
# A fault that ends by itself must do so long before the limit; a busy machine may need seconds for a connection.
LIMIT, SHORT_LIMIT = 60.0, 3.0


def raw(*parts, then=None):
    """These bytes as they are; then the connection ends, or `then` happens."""

    def deed(handler, seen):
        handler.close_connection = True
        for part in parts:
            handler.connection.sendall(part)
        if then is not None:
            then(handler, seen)

    return deed


def drip(byte):
    """One byte at a time until the client or the test ends, or a good while is over."""

    def deed(handler, seen):
        while not handler.chat.ended.wait(DRIP_SECONDS):
            handler.connection.sendall(byte)

    return deed


def flood(part):
    """As many bytes as the client takes."""

    def deed(handler, seen):
        while not handler.chat.ended.is_set():
            handler.connection.sendall(part)

    return deed


def encoded(name, body):
    return raw(HEAD, f"Content-Encoding: {name}\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body)


def of_type(kind, body):
    return raw(b"HTTP/1.1 200 OK\r\nContent-Type: ", kind, f"\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body)


def bomb(unpacked=2**30):
    """A gzip file of zeros."""
    packer, part = zlib.compressobj(9, wbits=31), bytes(2**20)
    return b"".join(packer.compress(part) for _ in range(unpacked // len(part))) + packer.flush()


ZEROS = zlib.compress(bytes(2**28))

FAULTS = {
    "nothing": raw(),
    "an empty line": raw(b"\r\n"),
    "garbage": raw(bytes(range(256)) * 100),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "an HTTP/2 preface": raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "headers that drip": raw(HEAD, then=drip(b"X")),
    "a status line that drips": raw(b"HTTP/1.1 ", then=drip(b"2")),
    "headers without end": raw(HEAD, then=flood(b"X-More: " + b"x" * 1000 + b"\r\n")),
    "one header without end": raw(HEAD, b"X-More: ", then=flood(b"x" * 65536)),
    "continue without end": raw(then=drip(b"HTTP/1.1 100 Continue\r\n\r\n")),
    "continue, many": raw(then=flood(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)),
    "another protocol": raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "a body that drips": raw(HEAD, b"Content-Length: 100000\r\n\r\n", then=drip(b" ")),
    "a body without length that drips": raw(HEAD, b"\r\n", then=drip(b" ")),
    "chunks that drip": raw(HEAD, b"Transfer-Encoding: chunked\r\n\r\n", then=drip(b"1\r\n \r\n")),
    "a body without end": raw(HEAD, b"\r\n", then=flood(b" " * 65536)),
    "a length without end": raw(HEAD, b"Content-Length: 999999999999999\r\n\r\n", then=flood(b"{" * 65536)),
    "chunks without end": raw(HEAD, b"Transfer-Encoding: chunked\r\n\r\n", then=flood(b"4000\r\n" + b" " * 0x4000 + b"\r\n")),
    "a chunk's comment without end": raw(HEAD, b"Transfer-Encoding: chunked\r\n\r\n4;", then=flood(b"x" * 65536)),
    "chunks of garbage": raw(HEAD, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + GOOD),
    "a negative chunk": raw(HEAD, b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + GOOD),
    "reset in the body": raw(HEAD, b"Content-Length: 1000\r\n\r\n{", then=reset),
    "a length too long": raw(HEAD, b"Content-Length: 99999\r\n\r\n", GOOD),
    "a length too short": raw(HEAD, b"Content-Length: 20\r\n\r\n", GOOD),
    "two lengths": raw(HEAD, b"Content-Length: 20\r\nContent-Length: 30\r\n\r\n", GOOD),
    "a negative length": raw(HEAD, b"Content-Length: -1\r\n\r\n", GOOD),
    "a gzip bomb": encoded("gzip", gzip.compress(ZEROS)),
    "a gzip bomb of a gigabyte": lambda handler, seen: encoded("gzip", bomb())(handler, seen),
    "gzip twice": encoded("gzip, gzip", gzip.compress(gzip.compress(bytes(2**24)))),
    "deflate": encoded("deflate", ZEROS),
    "zstd": encoded("zstd", b"(\xb5/\xfd"),
    "brotli": encoded("br", b"\x5b\xff\xff\xff"),
    "an unknown encoding": encoded("x-" + "y" * 1000, b"{}"),
    "a character set that unpacks": of_type(b"application/json; charset=zlib", ZEROS),
    "a character set that is none": of_type(b"text/plain; charset=undefined", b"7"),
    "HTML": of_type(b"text/html", b"<html>" + b"<b>" * 100_000),
    "an event stream": of_type(b"text/event-stream", b"data: {}\n\n" * 1000),
    "deep JSON": of_type(b"application/json", b"[" * 2**20),
    "deep objects": of_type(b"application/json", b'{"choices":' * 100_000),
    "a long number": of_type(b"application/json", b"9" * 100_000),
    "numbers that are none": of_type(b"application/json", b'{"choices": NaN, "usage": Infinity, "model": -Infinity}'),
    "UTF-16": of_type(b"application/json", '{"choices": 7}'.encode("utf-16")),
    "half a letter": of_type(b"application/json", b'{"choices": "\xff\xfe\x00"}'),
    "lone surrogates": of_type(b"application/json", b'{"choices": [{"message": {"content": null, "refusal": "\\ud800"}}]}'),
    "choices of another kind": of_type(b"application/json", b'{"choices": {"0": {"message": {"content": "{}"}}}}'),
    "choices of numbers": of_type(b"application/json", b'{"choices": [7, 8]}'),
    "a model of another kind": of_type(
        b"application/json", b'{"choices": [{"message": {}}], "model": {"a": [1]}, "usage": "x"}'
    ),
    "no content": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified": raw(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "a status of four digits": raw(b"HTTP/1.1 2000 OK\r\n\r\n"),
    "wait for 30 years": status(429, Retry_After="1e9"),
    "wait for no number": status(503, Retry_After="nan"),
    "wait until the year 9999": status(429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"),
    "wait a negative time": status(429, Retry_After="-5", Retry_After_Ms="-1e300"),
    "an error without end": raw(b"HTTP/1.1 500 No\r\n\r\n", then=flood(b"x" * 65536)),
    "an error with many words": status(400, {"error": {"message": "no\n" * 100_000}}),
    "an error of another kind": status(400, {"error": [{"message": {"a": 1}}]}),
}
ENDLESS = {fault for fault in FAULTS if "drip" in fault} | {"continue without end", "continue, many"}  # the limit ends them


def _limit(fault):
    """Seconds for describe.timeout."""
    return SHORT_LIMIT if fault in ENDLESS else LIMIT


def _error(url, timeout=LIMIT):
    """The line that ends the request."""
    chosen = DescribeSpec(provider="openai", base_url=url, retries=0, timeout=timeout)
    with pytest.raises(DescriptionError) as caught, Chat(chosen, SecretStr(KEY)) as chat:
        reply = chat.ask(ASK, None)
        if reply.content in ("", "{}"):  # no content is an answer, which the texts' own check refuses
            raise DescriptionError("no content")
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000 and KEY not in message
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    return message


@pytest.fixture(scope="module", autouse=True)
def _memory():
    """All faults together must not take what one bomb would."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MAX_GROWTH


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line(fault):
    with chat_server({"dog": [FAULTS[fault]]}) as server:
        _error(server.url, _limit(fault))
        assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["headers that drip", "a body that drips", "reset in the body", "a length too long"])
def test_after_a_fault_the_next_try_succeeds(fault):
    with chat_server({"dog": [FAULTS[fault], content("{}")]}) as server:
        spec = DescribeSpec(provider="openai", base_url=server.url, retries=1, timeout=_limit(fault))
        with Chat(spec, SecretStr(KEY)) as chat:
            assert chat.ask(ASK, None).content == "{}"
        assert len(server.requests) == 2


def test_what_was_wrong_is_named():
    for fault, words in {
        "a body that drips": f"no answer in {SHORT_LIMIT:g} s",
        "headers that drip": f"no answer in {SHORT_LIMIT:g} s",
        "a body without end": "larger than 4 MiB",
        "a gzip bomb": "is compressed (gzip)",
        "HTML": "is not that of a chat completion",
        "wait for 30 years": "status 429",
    }.items():
        with chat_server({"dog": [FAULTS[fault]]}) as server:
            assert words in _error(server.url, _limit(fault)), fault


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["other", "file:///etc/passwd", "//example.org/v1", "gopher://127.0.0.1/", "x" * 10_000])
def test_no_redirect_is_followed(code, place):
    with chat_server() as other:
        target = f"{other.url}/chat/completions" if place == "other" else place
        with chat_server({"dog": [status(code, {}, Location=target)]}) as server:
            message = _error(server.url)
    assert f"status {code}" in message and "where the key is not sent" in message and not other.requests


def test_a_proxy_of_the_environment_sees_no_key(monkeypatch):
    with chat_server() as proxy, chat_server({"dog": [content("{}")]}) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        spec = DescribeSpec(provider="openai", base_url=server.url, retries=0, timeout=LIMIT)
        with Chat(spec, SecretStr(KEY)) as chat:
            assert chat.ask(ASK, None).content == "{}"
    assert len(server.requests) == 1 and not proxy.requests


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody but itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(today - timedelta(days=1)).not_valid_after(today + timedelta(days=1))
    path = tmp_path_factory.mktemp("tls") / "self.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_that_nobody_signed_gets_no_key(certificate, monkeypatch):
    for name in ("PYTHONHTTPSVERIFY", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_VERIFY", "OPENAI_VERIFY_SSL"):
        monkeypatch.setenv(name, "0" if name == "PYTHONHTTPSVERIFY" else "")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with chat_server(tls=context) as server:
        assert "certificate" in _error(server.url.replace("http://", "https://")).lower()
        assert not server.requests


def test_tls_where_none_is_and_none_where_tls_is(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with chat_server() as plain, chat_server(tls=context) as secret:
        assert "no connection" in _error(plain.url.replace("http://", "https://"))
        assert _error(secret.url) and not plain.requests and not secret.requests


def test_a_handshake_that_never_ends():
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hold():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"\x16\x03\x03" + struct.pack(">H", 16000))
                for _ in range(200):
                    time.sleep(DRIP_SECONDS)
                    try:
                        connection.sendall(b"\x00")
                    except OSError:
                        return

        thread = threading.Thread(target=hold)
        thread.start()
        assert f"no answer in {SHORT_LIMIT:g} s" in _error(f"https://127.0.0.1:{listener.getsockname()[1]}/v1", SHORT_LIMIT)
        thread.join()
