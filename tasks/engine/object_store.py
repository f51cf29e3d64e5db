"""A store on S3-compatible storage: whole objects by name, through boto3.

    s3://BUCKET/PREFIX/<stage>/<key>/stage.json    markers, as in a folder (tasks/engine/marker.py)
    s3://BUCKET/PREFIX/objects/ab/<SHA-256>        the bytes of every file that a marker names, once each
    s3://BUCKET/PREFIX/records/                    runs and their signs of life (tasks/history/shared_records.py)

Each machine works in a folder of its own, the cache, which is a store as any other: STORE/.remote names the address that its
outputs are shared at. Credentials, region and endpoint (AWS_ENDPOINT_URL) are those that boto3 finds; none is ever written.

boto3 and not fsspec: a marker is to be written only where there is none, which is a header of S3's own (If-None-Match), and
clients without an event loop survive the processes that training forks.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from excel_core.errors import SettingError, StoreError
from excel_core.files import first_sentence
from excel_core.sync import make_folder

__all__ = [
    "CACHE",
    "REMOTE",
    "ObjectStore",
    "StoredObject",
    "cache_folder",
    "is_address",
    "remote_of",
    "remote_url",
    "user_cache",
]

ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_.=-]+)*")
CACHE, REMOTE = "EXCEL_CACHE", ".remote"
MAX_CONNECTIONS = 16  # at once, of a process
MAX_TRIES = 8  # of a request, over about a minute
MAX_DELETED = 1000  # names of a request, by S3's rule
MISSING = ("NoSuchKey", "404", "NotFound")


def is_address(store: str) -> bool:
    """Whether a store is named by an address rather than as a folder."""
    return store.startswith("s3:")


def cache_folder(address: str) -> Path:
    """This machine's folder for the store at `address`, made where it is missing: in $EXCEL_CACHE, else ~/.cache/excel.
    SettingError for an address that is none."""
    address = address.rstrip("/")
    if not ADDRESS.fullmatch(address):
        raise SettingError(
            f"--store {address}: expected s3://BUCKET or s3://BUCKET/PREFIX of letters, digits and . _ = - (credentials and "
            "endpoint come from the environment, as boto3 reads them)"
        )
    folder = user_cache() / address.removeprefix("s3://").replace("/", "+")
    if remote_url(folder) != address:
        make_folder(folder)
        (folder / REMOTE).write_text(address, encoding="utf-8")
    return folder


def user_cache() -> Path:
    """What excel keeps on this machine outside stores: $EXCEL_CACHE, else ~/.cache/excel. It need not exist."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "excel").resolve()


def remote_url(store: Path) -> str | None:
    """The address at which the outputs of a store are shared; None of a store that is a folder alone."""
    try:
        return (store / REMOTE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def remote_of(store: Path) -> "ObjectStore | None":
    """The storage behind a store; None where there is none."""
    address = remote_url(store)
    return None if address is None else _opened(address, os.getpid())


@dataclass(frozen=True)
class StoredObject:
    """What a listing says of an object. `age`: seconds since it was written, by the server's clock."""

    name: str
    bytes: int
    age: float
    etag: str


class ObjectStore:
    """Objects below an address by name. Every failure is a StoreError of one line, which names no credential."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.bucket, _, prefix = address.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = _client(address)

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None where there is none."""
        with self._failures(f"read {name}"):
            try:
                content: bytes = self._client.get_object(Bucket=self.bucket, Key=self._prefix + name)["Body"].read()
            except self._client.exceptions.ClientError as error:
                if _code(error) in MISSING:
                    return None
                raise
        return content

    def has(self, name: str) -> bool:
        """Whether there is such an object."""
        with self._failures(f"look for {name}"):
            try:
                self._client.head_object(Bucket=self.bucket, Key=self._prefix + name)
            except self._client.exceptions.ClientError as error:
                if _code(error) in MISSING:
                    return False
                raise
        return True

    def write(self, name: str, content: bytes) -> None:
        """Write an object, or write it anew."""
        with self._failures(f"write {name}"):
            self._client.put_object(Bucket=self.bucket, Key=self._prefix + name, Body=content)

    def write_new(self, name: str, content: bytes) -> None:
        """Write an object unless there is one: of two writers at once the first wins. A server that does not know the condition
        keeps the last; whoever wrote reads again what is there."""
        with self._failures(f"write {name}"):
            try:
                self._client.put_object(Bucket=self.bucket, Key=self._prefix + name, Body=content, IfNoneMatch="*")
            except self._client.exceptions.ClientError as error:
                if _code(error) in ("NotImplemented", "501"):
                    self.write(name, content)
                elif _code(error) not in ("PreconditionFailed", "412", "ConditionalRequestConflict", "409"):
                    raise

    def upload(self, file: Path, name: str) -> None:
        """Write a file's bytes as an object, a large one in pieces; it is there as a whole or not at all."""
        with self._failures(f"write {name}"):
            self._client.upload_file(str(file), self.bucket, self._prefix + name)

    def download(self, name: str, file: Path) -> None:
        """Write an object's bytes to a file, whose folder exists."""
        with self._failures(f"read {name}"):
            self._client.download_file(self.bucket, self._prefix + name, str(file))

    def listed(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`, by name."""
        with self._failures(f"list {prefix}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix + prefix)
            for page in pages:
                server_time = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for entry in page.get("Contents", []):
                    age = (server_time - entry["LastModified"]).total_seconds()
                    yield StoredObject(entry["Key"].removeprefix(self._prefix), entry["Size"], age, entry["ETag"].strip('"'))

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are gone already are no error."""
        for some in _in_groups(names, MAX_DELETED):
            with self._failures(f"remove {some[0]}"):
                keys = [{"Key": self._prefix + name} for name in some]
                answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
            for problem in answer.get("Errors", []):
                raise StoreError(f"{self.address}: cannot remove {problem.get('Key')} ({problem.get('Code')})")

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """StoreError for what boto3 raises: the server's code and message, or the connection's."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            problem = error.response.get("Error", {})
            raise StoreError(
                f"{self.address}: cannot {what} ({problem.get('Code')}: {problem.get('Message', '')}); see that the bucket "
                "exists and that the environment's credentials may use it, and run again"
            ) from None
        except (BotoCoreError, Boto3Error) as error:
            raise StoreError(f"{self.address}: cannot {what} ({first_sentence(error)}); run again once it answers") from None


_opening = Lock()


def _after_fork() -> None:
    """Another thread of the parent may have held the lock at the fork."""
    global _opening
    _opening = Lock()


os.register_at_fork(after_in_child=_after_fork)


def _opened(address: str, pid: int) -> ObjectStore:
    """A client a process: one that is inherited by a fork would share its connections."""
    with _opening:
        return _opened_once(address, pid)


@lru_cache(maxsize=4)
def _opened_once(address: str, pid: int) -> ObjectStore:
    return ObjectStore(address)


def _client(address: str) -> Any:
    """boto3's client. SettingError where the extra is not installed."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise SettingError(f"--store {address} needs the extra s3: pip install 'excel-wsss[s3]'") from None
    is_named = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    config = Config(
        retries={"max_attempts": MAX_TRIES, "mode": "standard"},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=MAX_CONNECTIONS,
        s3={"addressing_style": "path"} if is_named else {},  # servers other than Amazon's have seldom a name a bucket
    )
    return boto3.session.Session().client("s3", config=config)


def _code(error: Any) -> str:
    """The server's code of an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _in_groups(names: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(names)
    while group := list(islice(remaining, size)):
        yield group
