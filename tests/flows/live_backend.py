"""A labelling interface, and the backend for it served on a loopback port."""

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

__all__ = ["CONFIG", "asked", "data_address", "encoded", "interface", "served"]

CONFIG = """<View><Image name="photo" value="$image"/><BrushLabels name="brush" toName="photo">
<Label value="{}"/><Label value="{}"/></BrushLabels></View>"""


def interface(labels: list[str]) -> str:
    """A labelling interface with these labels, as they are in XML."""
    brushes = "".join(f'<Label value="{label}"/>' for label in labels)
    return f'<View><Image name="p" value="$image"/><BrushLabels name="b" toName="p">{brushes}</BrushLabels></View>'


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An ASGI application's address while it is served."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.01)
        assert server.started
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def encoded(picture: Image.Image, **options: Any) -> str:
    """A picture's file as a data: address."""
    file = io.BytesIO()
    picture.save(file, **options)
    return "data:;base64," + base64.b64encode(file.getvalue()).decode()


def data_address(image: np.ndarray) -> str:
    """An image (H, W, 3) uint8 as a data: address."""
    return encoded(Image.fromarray(image), format="PNG")


def asked(address: str, config: str, *images: np.ndarray | str) -> httpx.Response:
    """The backend's answer for a task an image, or an address of one."""
    tasks = [{"data": {"image": image if isinstance(image, str) else data_address(image)}} for image in images]
    return httpx.post(f"{address}/predict", json={"tasks": tasks, "label_config": config}, timeout=120)
