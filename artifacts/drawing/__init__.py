"""Pictures, as arrays (H, W, 3) uint8 RGB and as PNG.

overlays.py      CAMs and label maps over photos
lettering.py     tags, legends, captions and paragraphs
data_uris.py     pictures inside a page
sheet.py         a sheet of pictures in columns
photo_masks.py   a single photo with its masks, for `excel segment`
"""

from artifacts.drawing.data_uris import PNG_URI, bounded_data_uri, jpeg_data_uri, png_data_uri, webp_data_uri
from artifacts.drawing.lettering import (
    FAINT,
    INK,
    PAPER,
    Colour,
    LegendEntry,
    draw_caption,
    draw_legend,
    draw_paragraph,
    draw_tag,
    load_font,
    wrapped_lines,
)
from artifacts.drawing.overlays import (
    STEP_NAMES,
    class_mask,
    deepest_point,
    fit_image,
    fit_labels,
    overlay_cam,
    overlay_labels,
)

__all__ = [
    "FAINT", "INK", "PAPER", "PNG_URI", "STEP_NAMES", "Colour", "LegendEntry", "bounded_data_uri", "class_mask",
    "deepest_point", "draw_caption", "draw_legend", "draw_paragraph", "draw_tag", "fit_image", "fit_labels", "jpeg_data_uri",
    "load_font", "overlay_cam", "overlay_labels", "png_data_uri", "webp_data_uri", "wrapped_lines",
]  # fmt: skip
