"""Grid lines of charts as a page shows them, on light paper and on dark: seen, and still paler than data and words."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from artifacts.charts import empty_figure, png_bytes, tidy
from tests.conftest import ROOT
from tests.contrast import contrast

STYLES = (ROOT / "artifacts" / "report.css").read_text()
MIN_CONTRAST, MAX_CONTRAST = 1.5, 3.0


def _papers() -> dict[str, tuple[int, ...]]:
    """The page's own background by colour scheme: light first in the style sheet, then dark."""
    values = re.findall(r"--paper: #(\w{6});", STYLES)
    return {scheme: tuple(bytes.fromhex(value)) for scheme, value in zip(("light", "dark"), values, strict=True)}


def _shown(colour: np.ndarray, scheme: str) -> np.ndarray:
    """As report.css draws a grey of a chart on the page: dark pages invert it, and keep what is lighter than their paper."""
    if scheme == "light":
        return colour
    assert "img.chart { filter: invert(1) hue-rotate(180deg); mix-blend-mode: lighten;" in STYLES
    return np.maximum(255 - colour, _papers()["dark"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_grid_lines_are_seen_on_the_page(scheme: str) -> None:
    figure = empty_figure(8, 4.5)  # as wide as the page shows it, a pixel a pixel
    axes = figure.subplots()
    tidy(axes)
    axes.tick_params(length=0, labelleft=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    pixels = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("RGB")).astype(int)
    along = pixels[:, pixels.shape[1] // 2 + 7], pixels[pixels.shape[0] // 2 + 7]  # across the lines of either direction
    for line in along:
        darkest = line[line.sum(axis=1) < 3 * 250]
        assert len(darkest) >= 4
        ratio = contrast(_shown(line[line.sum(axis=1).argmin()], scheme), _papers()[scheme])
        assert MIN_CONTRAST <= ratio <= MAX_CONTRAST
