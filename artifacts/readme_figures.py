"""README's gallery and tables, made from a finished run."""

from pathlib import Path

import numpy as np

from artifacts.charts import empty_figure, png_bytes
from artifacts.drawing import STEP_NAMES, overlay_cam, overlay_labels
from artifacts.rows import markdown_table, markdown_text
from artifacts.tables import ablation_note, ablation_rows, results_rows
from artifacts.view import GalleryItem, Pixels, ReportView
from excel_core.files import written_then_renamed

__all__ = ["write_figures"]

MAX_GALLERY_IMAGES = 4


def write_figures(folder: Path, view: ReportView) -> list[Path]:
    """Write NAME_gallery.png and NAME_results.md into `folder`, NAME being the preset; returns their paths."""
    gallery_file, results_file = (folder / f"{view.preset}_{name}" for name in ("gallery.png", "results.md"))
    png = _gallery_png(view)
    with written_then_renamed(gallery_file) as temporary:
        temporary.write_bytes(png)
    with written_then_renamed(results_file) as temporary:
        temporary.write_text(_results_markdown(view), encoding="utf-8")
    return [gallery_file, results_file]


def _results_markdown(view: ReportView) -> str:
    stages = [{"stage": row.stage, "seconds": f"{row.seconds:.1f}", "KiB": f"{row.bytes / 1024:.0f}"} for row in view.stages]
    head = f"Preset `{view.preset}`, method `{view.method}`, CLIP `{view.clip}`. Scores are shares in [0, 1]."
    if view.given_segmenter:
        head += f" Nothing was trained: the segmenter comes from {markdown_text(view.given_segmenter)}."
    sections = [head, markdown_table(results_rows(view.metrics))]
    if view.metrics.get("ablation"):
        sections += [f"Ablation: {ablation_note(view.metrics)}.", markdown_table(ablation_rows(view.metrics))]
    return "\n\n".join([*sections, markdown_table(stages)]).rstrip() + "\n"


def _gallery_png(view: ReportView) -> bytes:
    """One row per image: the photo, its first class's CAM, the label map after each step, and the truth."""
    # Images have different numbers of pictures; axes without one stay empty.
    rows = [_captioned_pictures(item) for item in view.gallery[:MAX_GALLERY_IMAGES]]
    width = max(len(row) for row in rows)
    figure = empty_figure(1.75 * width, 1.9 * len(rows))
    axes = np.atleast_2d(figure.subplots(len(rows), width, squeeze=False))
    for line, row in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, (caption, pixels) in zip(line, row, strict=False):
            axis.imshow(pixels)
            axis.set_title(caption, fontsize=8, parse_math=False)
    return png_bytes(figure)


def _captioned_pictures(item: GalleryItem) -> list[tuple[str, Pixels]]:
    row = [(", ".join(item.labels), item.image)]
    row += [(f"CAM: {name}", overlay_cam(item.image, cam)) for name, cam in list(item.cams.items())[:1]]
    row += [(STEP_NAMES.get(step, step), overlay_labels(item.image, labels)) for step, labels in item.steps.items()]
    row += [
        (f"LVC {STEP_NAMES.get(step, step)}", overlay_labels(item.image, item.lvc_steps[step]))
        for step in list(item.lvc_steps)[-1:]
    ]
    return row + ([("truth", overlay_labels(item.image, item.truth))] if item.truth is not None else [])
