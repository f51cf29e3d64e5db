"""A page for one photo at a time: what it shows, how sure to be, how far to refine. Needs Gradio, and no internet."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.drawing import STEP_NAMES
from artifacts.drawing.photo_masks import class_shares, draw_overlay, share_text
from excel_core.errors import ExcelError, SettingError
from excel_core.prediction.predictors import parse_classes
from flows.live.labeller import DEFAULT_THRESHOLD, THRESHOLDS, PhotoLabeller

__all__ = ["make_page", "serve_page"]

Image = NDArray[np.uint8]
FONTS = ["system-ui", "sans-serif"]  # Gradio's own would be fetched from the internet
BUTTONS = ["download", "fullscreen"]  # Gradio's third shares a picture with the internet
NO_PHOTO = "Choose a photo first."


def serve_page(labeller: PhotoLabeller, host: str, port: int, classes: str) -> None:
    """Serve the page until it is interrupted."""
    page = make_page(labeller, classes)
    theme = _gradio().themes.Base(font=FONTS, font_mono=["monospace"])
    page.launch(server_name=host, server_port=port, share=False, quiet=True, theme=theme, inbrowser=False)


def make_page(labeller: PhotoLabeller, classes: str = "") -> Any:
    """The page as a gradio.Blocks. `classes`: what its field holds at first."""
    gradio = _gradio()
    steps = list(STEP_NAMES.items())[:4]
    with gradio.Blocks(title="excel", analytics_enabled=False) as page:
        gradio.Markdown("# excel\nMasks of a photo from the names of what it shows.")
        with gradio.Row():
            with gradio.Column():
                photo = gradio.Image(label="photo", type="numpy", sources=["upload", "clipboard"], height=320)
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
                shares = gradio.Dataframe(headers=["class", "pixels"], label="share of the photo", interactive=False)
                mask = gradio.Image(
                    label="label map: 0 background, 1 the first class", format="png", image_mode="L", interactive=False
                )
        inputs, outputs = [photo, names, threshold, refinement], [overlay, shares, mask]
        show = _shower(labeller, [step for step, _ in steps])
        button.click(show, inputs, outputs, api_name="segment")
        for slider in (threshold, refinement):
            slider.release(show, inputs, outputs, show_progress="minimal", api_name=False)
    return page


def _shower(labeller: PhotoLabeller, steps: list[str]) -> Callable[..., tuple[Image, list[list[str]], Image]]:
    gradio = _gradio()

    def show(photo: Image | None, names: str, threshold: float, refinement: int) -> tuple[Image, list[list[str]], Image]:
        if photo is None:
            raise gradio.Error(NO_PHOTO, print_exception=False)
        try:
            chosen = parse_classes(names) if names.strip() or labeller.trained is None else ()
            maps = labeller.steps(photo, chosen, threshold)
        except ExcelError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        allowed = steps[: int(refinement)]
        labels = [labels for step, labels in maps.items() if step in allowed or labeller.trained is not None][-1]
        known = labeller.class_names or chosen
        rows = [[name, share_text(share)] for name, share in class_shares(labels, known).items()]
        return draw_overlay(photo, labels, known), rows or [["only background", ""]], labels

    return show


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise SettingError("the page needs Gradio, which is not installed: pip install 'excel-wsss[serve]'") from None
    return gradio
