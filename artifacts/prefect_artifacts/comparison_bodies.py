"""Two runs side by side as Prefect artifacts: a page of tables with a link to the whole page, and the pictures."""

from pathlib import Path

from artifacts.comparison.page import READING
from artifacts.comparison.tables import class_difference_rows, comparison_note, runs_text, spec_difference_rows
from artifacts.prefect_artifacts.body import Body, MarkdownBody, artifact_key, picture_page
from artifacts.rows import markdown_table, markdown_text, place
from excel_core.files import read_json

__all__ = ["comparison_bodies"]

PICTURES = {
    "classes": "IoU by class, B − A with intervals",
    "images": "Images that changed most: photo, truth, A, B, difference",
}


def comparison_bodies(folder: Path, link: str = "") -> list[Body]:
    """What `publish_comparison` creates, in order."""
    comparison = read_json(folder / "comparison.json")
    preset = str(comparison["preset"])
    runs, page = runs_text(comparison), folder / "index.html"
    settings = markdown_table(spec_difference_rows(comparison["spec"])) or "None: both runs were asked for the same.\n"
    text = "\n".join(
        [
            f"{place('The page with all images', page, f'{link}/{page.name}' if link else '')}\n",
            f"* {markdown_text(runs)}",
            f"* {markdown_text(comparison_note(comparison))}\n",
            f"## Settings that differ\n\n{settings}",
            f"## By class\n\n{markdown_text(READING)}.\n\n{markdown_table(class_difference_rows(comparison['classes']))}",
        ]
    )
    pages: list[Body] = [MarkdownBody(artifact_key("compare", preset), f"Two runs: {runs}", text)]
    for name, title in PICTURES.items():
        file = folder / f"{name}.png"
        if file.is_file():
            picture = picture_page(f"{title}; {runs}", file.read_bytes())
            pages.append(MarkdownBody(artifact_key("compare", name, preset), f"{title}; {runs}", picture))
    return pages
