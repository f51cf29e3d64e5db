"""Reports over HTTP, beside Prefect's UI: read-only, and for those alone who have a link.

    /reports/<capability>/<stage>/<key>/index.html     a file of STORE/<stage>/<key>/

A capability is a digest of stage and key under the store's key (flows/local/access.py), so that it opens one output alone, and
none once the key is exchanged. Pages and pictures of finished reports are served, and nothing else of the store. A page gets
an origin of its own (CSP sandbox): whatever runs in it can neither read the UI's key nor ask Prefect's API.
"""

import hashlib
import hmac
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from flows.local.access import credential_of

if TYPE_CHECKING:
    from flows.local.guard import App

__all__ = ["PREFIX", "report_app", "report_link"]

PREFIX = "/reports/"
STAGES = ("report", "benchmark", "figures", "compare")  # whose outputs are made to be looked at
MARKER = "stage.json"
TYPES = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".json": "application/json",
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".svg": "image/svg+xml",
}  # fmt: skip
POLICY = (
    "sandbox allow-scripts allow-popups allow-downloads",
    "default-src 'none'",
    "script-src 'self' 'unsafe-inline'",  # the page itself says which, by their digests
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
HEADERS = {
    "content-security-policy": "; ".join(POLICY),
    # A sandboxed page is of no origin, "null"; these let it read its own files, of which only it knows the address.
    "access-control-allow-origin": "null",
    "cross-origin-resource-policy": "cross-origin",
    "referrer-policy": "no-referrer",  # the address is the capability
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "private, no-cache",
}


def report_link(store: Path, file: Path) -> str:
    """The address of a file or the folder of an output, without the server's: for artifacts in the UI that `excel up` shows for
    this store. "" where Prefect's home or server is another one."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    server = urlsplit(settings.api.url or "http://127.0.0.1").hostname
    credential = credential_of(store / "prefect")
    if not credential or settings.home.resolve() != (store / "prefect").resolve():
        return ""
    if server not in ("127.0.0.1", "localhost", "::1"):
        return ""
    stage, key, *names = file.relative_to(store).parts
    return PREFIX + "/".join([_capability(credential, stage, key), stage, key, *map(quote, names)])


def report_app(store: Path, credential: str) -> "App":
    """An ASGI application that serves the reports in `store`; 404 for everything else below PREFIX."""
    from starlette.responses import FileResponse, PlainTextResponse

    async def app(scope: Any, receive: Any, send: Any) -> None:
        file = _file(store, credential, scope["path"].removeprefix(PREFIX))
        if scope["method"] not in ("GET", "HEAD"):
            answer: Any = PlainTextResponse("Read only", 405, HEADERS | {"allow": "GET, HEAD"})
        elif file is None:
            answer = PlainTextResponse("No such report, or the link is of an earlier key", 404, HEADERS)
        else:
            answer = FileResponse(file, headers=HEADERS, media_type=TYPES[file.suffix.lower()])
        await answer(scope, receive, send)

    return app


def _file(store: Path, credential: str, path: str) -> Path | None:
    """The file that a path names, CAPABILITY/STAGE/KEY/NAME…, if it may be served."""
    address = re.fullmatch(r"([0-9a-f]{40})/([a-z]+)/([0-9a-f]{32})/(.+)", path)
    if address is None or address[2] not in STAGES:
        return None
    capability, stage, key, name = address.groups()
    if not hmac.compare_digest(capability, _capability(credential, stage, key)):
        return None
    names = name.split("/")
    if names == [MARKER] or any(not name or name.startswith(".") or re.search(r"[\\\0]", name) for name in names):
        return None
    folder = (store / stage / key).resolve()
    file = folder.joinpath(*names)
    try:
        is_served = (folder / MARKER).is_file() and file.is_file() and file.resolve() == file  # no link leads elsewhere
    except (OSError, ValueError):  # a name that no file can have
        return None
    return file if is_served and file.suffix.lower() in TYPES else None


def _capability(credential: str, stage: str, key: str) -> str:
    return hmac.new(credential.encode(), f"excel report\n{stage}\n{key}".encode(), hashlib.sha256).hexdigest()[:40]
