"""`excel serve`: a page for single photos in the browser, or a backend for Label Studio."""

import socket
from typing import Annotated

import typer

from flows.cli.options import takes_request
from flows.request import RunRequest

__all__ = ["serve"]


@takes_request(RunRequest, "clip device settings store")
def serve(
    request: RunRequest,
    classes: Annotated[str, typer.Option(help="class names with commas that the page begins with")] = "",
    weights: Annotated[
        str | None, typer.Option(help="a trained segmenter: a run's id, or FILE of `excel export`", show_default=False)
    ] = None,
    side: Annotated[int, typer.Option(min=64, help="pixels of the longer side that masks are computed at, at most")] = 640,
    what: Annotated[str, typer.Option("--for", help="page, or label-studio: its ML backend")] = "page",
    label_studio: Annotated[
        str | None, typer.Option(help="with --for label-studio: its address, from which photos are fetched", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; others than this machine's have no sign-in")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
) -> None:
    """Serve masks of single photos on this machine: a page in the browser, or a backend for Label Studio."""
    from excel_core.errors import SettingError
    from excel_core.prediction.predictors import parse_classes
    from flows.live.labeller import PhotoLabeller

    if what not in ("page", "label-studio"):
        raise SettingError(f"--for {what}: valid: page, label-studio")
    if label_studio is not None:
        from flows.live.label_studio import check_label_studio

        if what != "label-studio":
            raise SettingError("--label-studio: is for --for label-studio alone")
        check_label_studio(label_studio)  # before models are loaded
    if what == "page":
        from flows.live.page import require_gradio, serve_page

        require_gradio()
    _require_port(host, port)
    names = parse_classes(classes) if classes else ()
    labeller = PhotoLabeller(request, weights, side)
    if names:
        labeller.check(names)
    print(f"http://{host}:{port}", flush=True)
    if what == "page":
        serve_page(labeller, host, port, classes)
        return
    import uvicorn

    from flows.live.label_studio import backend

    uvicorn.run(backend(labeller, label_studio), host=host, port=port, log_level="warning")


def _require_port(host: str, port: int) -> None:
    """SettingError where nothing can listen there, before models are loaded."""
    from excel_core.errors import SettingError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(1)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no name of a machine"
        raise SettingError(f"--host {host} --port {port}: cannot be listened on ({why}); name another one") from None
