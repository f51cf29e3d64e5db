"""Artifacts of the paper's tables and figures, of the benchmark, and of the score of training-free label maps."""

from pathlib import Path

from artifacts.benchmark.tables import benchmark_markdown
from artifacts.paper.table import paper_markdown
from artifacts.prefect_artifacts.body import Body, MarkdownBody, TableBody, artifact_key, non_empty, picture_page
from artifacts.prefect_artifacts.results_body import results_body
from artifacts.rows import markdown_text, place
from artifacts.score_change import change_notes, change_rows
from excel_core.files import read_json

__all__ = ["benchmark_bodies", "figure_bodies", "paper_body", "score_bodies"]


def paper_body(table: str, path: Path) -> MarkdownBody:
    """A table of the paper, read from its JSON file, as a Markdown page."""
    document = read_json(path)
    description = f"{document['title']}, preset {document['preset']}"
    return MarkdownBody(artifact_key("paper", table), description, paper_markdown(document))


def figure_bodies(folder: Path, link: str = "") -> list[Body]:
    """What `publish_figures` creates: a page per figure."""
    document = read_json(folder / "figures.json")
    classes_and_images = ", ".join(f"{image['class']} in {image['id']}" for image in document["images"])
    pages: list[Body] = []
    for number, title in document["figures"].items():
        file = folder / f"figure_{number}.png"
        picture = picture_page(f"figure {number}, {title}: {classes_and_images}", file.read_bytes())
        page = f"{place('The figure alone', file, f'{link}/{file.name}' if link else '')}\n\n{picture}"
        run = f"preset {document['preset']}, {document['method']} method with {document['clip']}"
        key = artifact_key("figure", number, document["preset"])
        pages.append(MarkdownBody(key, f"Figure {number}: {title}; {run}", page))
    return pages


def benchmark_bodies(folder: Path, link: str = "") -> list[Body]:
    """What `publish_benchmark` creates: the tables with the page's path, and a page per picture."""
    document = read_json(folder / "benchmark.json")
    methods = ", ".join(method["name"] for method in document["methods"])
    words = f"{methods} on preset {document['preset']} with {document['clip']}"
    text = f"{place('The page with all pictures', folder / 'index.html', link)}\n\n{benchmark_markdown(document)}"
    pages: list[Body] = [MarkdownBody(artifact_key("benchmark", document["preset"]), f"Benchmark: {words}", text)]
    for path in sorted(folder.glob("*.png")):
        name = path.stem.replace("_", " ")
        key = artifact_key("benchmark", name, document["preset"])
        pages.append(MarkdownBody(key, f"Benchmark, {name}: {words}", picture_page(f"{name}: {words}", path.read_bytes())))
    return pages


def score_bodies(folder: Path, change: Path) -> list[Body]:
    """What `publish_score` creates: the scores, the classes that were edited, the others that changed, and the pictures."""
    scores, document, picture = read_json(folder / "score.json"), read_json(change), change.with_suffix(".png")
    preset, run = scores["preset"], f"preset {scores['preset']}, {scores['method']} method with {scores['clip']}"
    runs = f"run {document['before']} → {document['after']}"
    tables = [
        results_body(artifact_key("score", preset), f"Training-free label maps of {run}", scores),
        TableBody(artifact_key("score-change", preset), f"Classes that were edited, {runs}", change_rows(document)),
        TableBody(
            artifact_key("score-others", preset), f"Other classes that changed, {runs}", change_rows(document, edited=False)
        ),
    ]
    text = "\n".join(f"* {markdown_text(note)}" for note in change_notes(document)) + "\n"
    if document["picture"]:
        images = ", ".join(entry["id"] for entry in document["images"])
        text = picture_page(f"photo, label maps before and after, and truth of {images}", picture.read_bytes()) + "\n" + text
    page = MarkdownBody(artifact_key("score-pictures", preset), "Images that changed most, and how to read the scores", text)
    return [*non_empty(tables), page]
