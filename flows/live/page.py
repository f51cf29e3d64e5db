"""A page for one photo at a time: what it shows, how sure to be, how far to refine. Needs Gradio, and no internet."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.drawing import STEP_NAMES, fit_image, fit_labels, overlay_labels
from artifacts.drawing.photo_masks import class_shares, draw_overlay, share_text
from excel_core.datasets.images import image_formats, load_image
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import ExcelError, SettingError
from excel_core.prediction.predictors import parse_classes
from flows.live.labeller import DEFAULT_THRESHOLD, THRESHOLDS, PhotoLabeller

__all__ = ["make_page", "require_gradio", "serve_page", "show_photo"]

Image = NDArray[np.uint8]
FONTS = ["system-ui", "sans-serif"]  # Gradio's own would be fetched from the internet
VALUES_SIDE = 960  # pixels of the longer side of the picture with label values
BUTTONS = ["download", "fullscreen"]  # Gradio's third shares a picture with the internet
NO_PHOTO = "Choose a photo first."
NO_REMARKS = "none"
Shown = tuple[Image, str, list[list[str]], Image, str]  # overlay, doubts and warnings, shares, label values, label map's file


def serve_page(labeller: PhotoLabeller, host: str, port: int, classes: str) -> None:
    """Serve the page until it is interrupted."""
    page = make_page(labeller, classes)
    theme = require_gradio().themes.Base(font=FONTS, font_mono=["monospace"])
    page.launch(server_name=host, server_port=port, share=False, quiet=True, theme=theme, inbrowser=False)


def make_page(labeller: PhotoLabeller, classes: str = "") -> Any:
    """The page as a gradio.Blocks. `classes`: what its field holds at first."""
    gradio = require_gradio()
    image_formats()  # makes Pillow, and so Gradio, read HEIC where pillow-heif is installed
    steps = list(STEP_NAMES.items())[:4]
    with gradio.Blocks(title="excel", analytics_enabled=False) as page:
        gradio.Markdown("# excel\nMasks of a photo from the names of what it shows.")
        with gradio.Row():
            with gradio.Column():
                # The file as it is: Gradio would cut 16-bit values off, and read no HEIC.
                photo = gradio.Image(
                    label="photo", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=320
                )
                names = gradio.Textbox(label="classes, with commas", value=classes, placeholder="dog, sofa")
                threshold = gradio.Slider(
                    *THRESHOLDS, value=DEFAULT_THRESHOLD, step=0.05, label="threshold: how strong a CAM must be",
                    interactive=labeller.trained is None,
                )  # fmt: skip
                refinement = gradio.Slider(
                    1, len(steps), value=len(steps), step=1, label="refinement: 1 raw, 2 + affinity, 3 + PAR, 4 + CRF",
                    interactive=labeller.trained is None,
                )  # fmt: skip
                button = gradio.Button("Segment", variant="primary")
            with gradio.Column():
                overlay = gradio.Image(label="masks", format="png", interactive=False, buttons=BUTTONS)
                remarks = gradio.Textbox(label="doubts and warnings", interactive=False, lines=2, max_lines=12)
                shares = gradio.Dataframe(headers=["class", "pixels"], label="share of the photo", interactive=False)
                values = gradio.Image(
                    label="label values: 1 the first class, without a colour 0, background", format="png", interactive=False,
                    buttons=BUTTONS,
                )  # fmt: skip
                mask = gradio.File(label="label map: a palette PNG of these values", interactive=False)
        inputs, outputs = [photo, names, threshold, refinement], [overlay, remarks, shares, values, mask]
        show = _shower(labeller, [step for step, _ in steps])
        button.click(show, inputs, outputs, api_name="segment")
        for slider in (threshold, refinement):
            slider.release(show, inputs, outputs, show_progress="minimal", api_name=False)
    return page


def _shower(labeller: PhotoLabeller, steps: list[str]) -> Callable[..., Shown]:
    gradio = require_gradio()
    files = tempfile.TemporaryDirectory(prefix="excel-page-")  # removed with the page; Gradio has copies by then

    def show(photo: str | None, names: str, threshold: float, refinement: int) -> Shown:
        if photo is None:
            raise gradio.Error(NO_PHOTO, print_exception=False)
        try:
            return show_photo(labeller, Path(photo), names, threshold, steps[: int(refinement)], Path(files.name))
        except ExcelError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    return show


def show_photo(
    labeller: PhotoLabeller, photo: Path, names: str, threshold: float, allowed: Sequence[str], folder: Path
) -> Shown:
    """A photo's masks after the last of the `allowed` steps, as the page shows them; both pictures (h, w, 3) uint8 RGB, the
    second fitted to VALUES_SIDE. The label map's file is in a new folder in `folder`, under the photo's name. ExcelError for
    a photo that cannot be read, and for names as of `PhotoLabeller.look`."""
    chosen = parse_classes(names) if names.strip() or labeller.trained is None else ()
    image = load_image(photo)
    labelled = labeller.look(image, chosen, threshold)
    labels = labelled.labels([step for step in labelled.steps if step in allowed or labeller.trained is not None][-1])
    shares = class_shares(labels, labelled.class_names)
    doubts = {name: reason for name, reason in labelled.doubts.items() if name in shares}
    rows = [[name, share_text(share) + (", doubtful" if name in doubts else "")] for name, share in shares.items()]
    remarks = [*(f"doubtful: {name}: {reason}" for name, reason in doubts.items()), *labelled.notes]
    file = Path(tempfile.mkdtemp(dir=folder)) / f"{photo.stem}.png"
    save_labels_png(file, labels)
    picture = draw_overlay(image, labels, labelled.class_names)
    values = overlay_labels(fit_image(image, VALUES_SIDE), fit_labels(labels, VALUES_SIDE))
    return picture, "\n\n".join(remarks) or NO_REMARKS, rows or [["only background", ""]], values, str(file)


def require_gradio() -> Any:
    """The module, which reports nothing to its makers. SettingError where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise SettingError("the page needs Gradio, which is not installed: pip install 'excel-wsss[serve]'") from None
    return gradio
