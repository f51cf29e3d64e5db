"""An ML backend for Label Studio, by its HTTP interface: GET /health, POST /setup, POST /predict.

    excel serve --for label-studio --label-studio http://127.0.0.1:8080      # its key: LABEL_STUDIO_API_KEY

The labelling interface names the classes: its <BrushLabels>, over an <Image>. Photos are fetched from that Label Studio alone,
or come as data: addresses: a task cannot make the backend read other places.
"""

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import numpy as np
from defusedxml import ElementTree
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from excel_core.datasets.images import UPRIGHT
from excel_core.errors import DataError, ExcelError, ImageError, SettingError, shown
from excel_core.exports.brush_runs import encode_brush
from excel_core.text.key_transport import is_web_address, require_encrypted
from flows.live.labeller import Labelled, PhotoLabeller

__all__ = ["Interface", "backend", "check_label_studio", "read_interface"]

MODEL, KEY = "excel", "LABEL_STUDIO_API_KEY"
MAX_BODY = 64 * 2**20  # bytes of a request, or of a photo
SECONDS = 60.0  # to wait for a photo


@dataclass(frozen=True)
class Interface:
    """What a labelling interface asks for: the brush's name, the image it paints on, where a task holds it, and the classes."""

    brush: str
    image: str
    field: str
    classes: tuple[str, ...]


def read_interface(config: str) -> Interface:
    """SettingError where the labelling interface has no <BrushLabels> over an <Image>."""
    try:
        tree = ElementTree.fromstring(config)
    except Exception as error:  # defusedxml's refusals have no common root with the parser's errors
        raise SettingError(f"the labelling interface is no XML that can be read: {error}") from None
    images = {element.get("name"): element.get("value", "") for element in tree.iter("Image")}
    for brush in tree.iter("BrushLabels"):
        image = brush.get("toName", "")
        classes = tuple(label.get("value", "") for label in brush.iter("Label"))
        if image in images and all(classes) and classes:
            return Interface(brush.get("name", ""), image, images[image].removeprefix("$"), classes)
    raise SettingError("the labelling interface needs <BrushLabels toName=…> with <Label value=…> over an <Image name=…>")


def backend(labeller: PhotoLabeller, label_studio: str | None) -> Starlette:
    """The backend as an ASGI application. label_studio: address that photos are fetched from; None: data: addresses alone.
    SettingError as `check_label_studio` raises it."""
    if label_studio is not None:
        check_label_studio(label_studio)

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "UP", "model_class": MODEL})

    async def setup(request: Request) -> JSONResponse:
        document = await _json(request)
        labeller.check(read_interface(str(document.get("schema", ""))).classes)
        return JSONResponse({"model_version": MODEL})

    async def predict(request: Request) -> JSONResponse:
        document = await _json(request)
        interface = read_interface(str(document.get("label_config", "")))
        tasks = document.get("tasks")
        if not isinstance(tasks, list):
            raise SettingError("tasks: expected a list")
        predictions = [await run_in_threadpool(_prediction, labeller, interface, task, label_studio) for task in tasks]
        return JSONResponse({"results": predictions, "model_version": MODEL})

    async def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=400)

    routes = [Route("/health", health), Route("/", health), Route("/setup", setup, methods=["POST"])]
    routes += [Route("/predict", predict, methods=["POST"])]
    return Starlette(routes=routes, exception_handlers={ExcelError: refused})


def check_label_studio(address: str) -> None:
    """SettingError for what is no address, and where its key would go to another machine over plain HTTP."""
    if not is_web_address(address) or "@" in urlsplit(address).netloc:
        raise SettingError("--label-studio: expected http://HOST:PORT or https://HOST, without a user's name and password")
    if _key():
        require_encrypted(address, KEY, "--label-studio")


def _key() -> str:
    return os.environ.get(KEY, "").strip()


async def _json(request: Request) -> Mapping[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise SettingError(f"the request is larger than {MAX_BODY >> 20} MiB")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SettingError(f"the request is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise SettingError("the request is no JSON object")
    return document


def _prediction(labeller: PhotoLabeller, interface: Interface, task: Any, label_studio: str | None) -> dict[str, Any]:
    """A task's masks. A photo that cannot be had or read has none, with the reason: it must not cost the others theirs."""
    empty = {"model_version": MODEL, "score": 0.0, "result": []}
    try:
        image = _photo(task, interface, label_studio)
        labelled = labeller.look(image, interface.classes)
    except DataError as error:
        return empty | {"error": str(error)}
    return empty | {"result": _results(labelled, interface)}


def _results(seen: Labelled, interface: Interface) -> list[dict[str, Any]]:
    labels = seen.labels()
    height, width = labels.shape
    results = []
    for name, label in zip(interface.classes, seen.values, strict=True):
        mask = labels == label
        if not mask.any():
            continue
        value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [name]}
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        results.append(
            {"from_name": interface.brush, "to_name": interface.image, "type": "brushlabels", "value": value, **size}
        )
    return results


def _photo(task: Any, interface: Interface, label_studio: str | None) -> NDArray[np.uint8]:
    data = task.get("data") if isinstance(task, dict) else None
    address = data.get(interface.field) if isinstance(data, dict) else None
    if not isinstance(address, str):
        raise DataError(f"the task holds no {interface.field!r}")
    image_bytes = _of_data_address(address) if address.startswith("data:") else _fetched(address, label_studio)
    with tempfile.NamedTemporaryFile() as file:
        file.write(image_bytes)
        file.flush()
        try:
            return UPRIGHT.read(Path(file.name))
        except ImageError as error:
            raise DataError(str(error).replace(file.name, "the photo")) from None


def _of_data_address(address: str) -> bytes:
    head, _, encoded = address.partition(",")
    if not head.endswith(";base64"):
        raise DataError("a data: address of a photo must be base64")
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise DataError(f"a data: address is no base64: {error}") from None


def _fetched(address: str, label_studio: str | None) -> bytes:
    if label_studio is None:
        raise DataError(f"{shown(address)}: start with --label-studio http://… to fetch photos from it")
    try:
        full = urljoin(label_studio.rstrip("/") + "/", address)
        is_of_it = urlsplit(full)[:2] == urlsplit(label_studio)[:2]
    except ValueError as error:
        raise DataError(f"{shown(address)}: is no address ({error})") from None
    if not is_of_it:
        raise DataError(f"{shown(address)}: is not of {label_studio}, the only place that photos are fetched from")
    headers = {"Authorization": f"Token {_key()}"} if _key() else {}
    try:
        with httpx.stream("GET", full, headers=headers, timeout=SECONDS, follow_redirects=False) as answer:
            answer.raise_for_status()
            body = bytearray()
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > MAX_BODY:
                    raise DataError(f"{shown(address)}: is larger than {MAX_BODY >> 20} MiB")
            return bytes(body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise DataError(f"{shown(address)}: cannot be fetched ({error})") from None
