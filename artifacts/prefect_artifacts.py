"""The results as Prefect artifacts: tables, and Markdown pages with small pictures (written by artifacts/published.py).

Keys are stable, so that the UI shows an artifact's history from run to run:

    excel-results-<preset>            every result with its protocol
    excel-classes-<preset>-<family>   a family of results by class, e.g. seeds-lvc-train, segmentation-val
    excel-paper-<table>               a table of the paper, ours beside the published figures
    excel-score-<preset>              the training-free label maps, scored by the flow `score`
    excel-score-change-<preset>       what an edit of prompts did to them, by class
    excel-score-others-<preset>       the same of classes that nobody edited
    excel-score-pictures-<preset>     the images that changed most, and how to read the tables
    excel-compare-<preset>            two runs side by side: settings, scores, classes (artifacts/comparison_artifacts.py)
    excel-compare-NAME-<preset>       the same drawn: classes, images
    excel-benchmark-<preset>          methods on the same images: scores, differences, costs
    excel-benchmark-NAME-<preset>     the same drawn: overview, classes by kind of label map, galleries
    excel-ablation-<preset>           the ablation's rows
    excel-ablation-chart-<preset>     the same with intervals, drawn
    excel-gallery-<preset>            pictures, headline numbers, what was skipped, and where the report is
    excel-<stage>-<preset>            pictures of a stage that ran alone (cams, refine, dynamic, predict); the images of dataset
    excel-texts-<preset>              every class's descriptions
    excel-texts-diff-<preset>         what changed in the knowledge base since an earlier run
    excel-attributes-<preset>         attributes: their nearest descriptions and the classes that use them
    excel-losses-<preset>             the loss curve of training
    excel-curve-<preset>              scores of the segmenters kept during training, with the published log's
    excel-curve-chart-<preset>        the same, drawn
    excel-knowledge-<preset>          the map of descriptions, attributes and classes
    excel-stages-<preset>             which stages this run built, which runs built the others, and where outputs lie
    excel-stages-<stage>-<preset>     the same up to a stage that ran alone
    excel-figure-<number>-<preset>    the paper's figures 4 to 6 of the run's own images
    excel-unchanged-<preset>          links to earlier artifacts, for what is as before

What a run has nothing for is left out.
"""

from collections.abc import Sequence
from pathlib import Path

from artifacts.artifact_pages import MAX_MARKDOWN_BYTES, artifact_key, picture_page, slug
from artifacts.benchmark import benchmark_markdown
from artifacts.gallery import (
    Picture,
    ablation_picture,
    curve_picture,
    gallery_markdown,
    knowledge_picture,
    loss_picture,
)
from artifacts.paper_table import paper_markdown
from artifacts.published import KEEP_PICTURES, MarkdownBody, TableBody, publish_bodies
from artifacts.rows import ABSENT, Row, markdown_text, place
from artifacts.score_change import change_notes, change_rows
from artifacts.stage_pages import StagePage
from artifacts.stages import stages_markdown
from artifacts.tables import (
    ablation_note,
    ablation_rows,
    common_protocol,
    curve_note,
    curve_rows,
    families,
    family_rows,
    footnoted,
    protocol_text,
    result_words,
    results_rows,
)
from artifacts.view import AttributeRow, Metrics, ReportView
from excel_core.files import read_json

__all__ = [
    "MAX_MARKDOWN_BYTES", "MarkdownBody", "TableBody", "ablation_bodies", "benchmark_bodies", "bodies", "figure_bodies",
    "publish", "publish_ablation", "publish_benchmark", "publish_figures", "publish_paper", "publish_score", "publish_stage",
    "score_bodies", "stage_bodies",
]  # fmt: skip

# Columns of results. The UI shows a row in one line and cuts it off: a phone has room for the first two or three, a window of
# 1,400 pixels for all up to `images`.
RESULT_ORDER = (
    "mIoU", "what", "split", "refinement", "scales", "labels used", "images", "precision", "recall", "interval",
)  # fmt: skip
MARK = " *"


def publish(view: ReportView, report: Path, link: str = "", keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """Create the artifacts of a run and link them to the flow or task run that calls this → their keys. `link`: the address of
    the report, where a server has it."""
    return publish_bodies(bodies(view, report, link), slug(view.preset), keep_pictures)


def publish_stage(
    stage: str, view: ReportView, pages: Sequence[StagePage], folder: Path, keep_pictures: int = KEEP_PICTURES
) -> list[str]:
    """The same of a stage that ran alone: `view` holds what it made and nothing else; `pages` come before it."""
    return publish_bodies(stage_bodies(stage, view, pages, folder), slug(stage, view.preset), keep_pictures)


def publish_ablation(metrics: Metrics, preset: str, keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the ablation alone; of metrics.json's content only `ablation` is read."""
    return publish_bodies(ablation_bodies(metrics, preset), slug("ablation", preset), keep_pictures)


def publish_paper(table: str, path: Path) -> list[str]:
    """A table of the paper, read from its JSON file, as a Markdown page → its key."""
    document = read_json(path)
    description = f"{document['title']}, preset {document['preset']}"
    return publish_bodies([MarkdownBody(artifact_key("paper", table), description, paper_markdown(document))], slug(table))


def publish_benchmark(folder: Path, link: str = "", keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the benchmark; `folder` is the output of the stage `benchmark`."""
    bodies = benchmark_bodies(folder, link)
    return publish_bodies(bodies, slug("benchmark", read_json(folder / "benchmark.json")["preset"]), keep_pictures)


def publish_figures(folder: Path, link: str = "", keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the paper's figures; `folder` is the output of the stage `figures`, `link` its address."""
    return publish_bodies(figure_bodies(folder, link), "figures", keep_pictures)


def publish_score(folder: Path, change: Path, keep_pictures: int = KEEP_PICTURES) -> list[str]:
    """The same for the flow `score`; `folder` is the output of the stage, `change` the comparison's file."""
    found = score_bodies(folder, change)
    return publish_bodies(found, slug("score", read_json(folder / "score.json")["preset"]), keep_pictures)


def bodies(view: ReportView, report: Path, link: str = "") -> list[TableBody | MarkdownBody]:
    """What `publish` creates, in order; `report` is the page's path."""
    gallery = gallery_markdown(view, place("The full report", report, link), MAX_MARKDOWN_BYTES)
    page = MarkdownBody(artifact_key("gallery", view.preset), f"Gallery of {_run_words(view)}", gallery)
    return [*_tables(view), page, *_charts(view), *_stages(view, "stages")]


def stage_bodies(stage: str, view: ReportView, pages: Sequence[StagePage], folder: Path) -> list[TableBody | MarkdownBody]:
    """What `publish_stage` creates, in order; `folder` is the stage's output."""
    made: list[TableBody | MarkdownBody] = [
        MarkdownBody(artifact_key(page.name, view.preset), f"{page.title}; {_run_words(view)}", page.markdown) for page in pages
    ]
    if view.gallery or view.segmented:
        pictures = gallery_markdown(view, place("All of them", folder), MAX_MARKDOWN_BYTES)
        made.append(MarkdownBody(artifact_key(stage, view.preset), f"Stage {stage} of {_run_words(view)}", pictures))
    return [*made, *_tables(view), *_charts(view), *_stages(view, f"stages-{stage}")]


def _run_words(view: ReportView) -> str:
    return f"preset {view.preset}, {view.method} method with {view.clip}"


def _tables(view: ReportView) -> list[TableBody | MarkdownBody]:
    """Tables of what the view has: results, classes, curve, ablation, attributes."""
    attributes = TableBody(
        artifact_key("attributes", view.preset),
        f"Attributes: {view.attributes_are}; nearest descriptions first; classes with their softmax weights",
        [_attribute_row(row) for row in view.attributes],
    )
    curve = TableBody(artifact_key("curve", view.preset), curve_note(view.curve), curve_rows(view.curve))
    results = _results(artifact_key("results", view.preset), f"Results of {_run_words(view)}", view.metrics)
    tables = _non_empty([results, *_class_tables(view), curve])
    return [*tables, *ablation_bodies(view.metrics, view.preset), *_non_empty([attributes])]


def _charts(view: ReportView) -> list[TableBody | MarkdownBody]:
    """Charts of what the view has, a page each."""
    return [
        *_chart("losses", view.preset, "Training", loss_picture(view)),
        *_chart("curve-chart", view.preset, "Scores on the way", curve_picture(view.curve)),
        *_chart("knowledge", view.preset, "Knowledge base", knowledge_picture(view)),
    ]


def _stages(view: ReportView, name: str) -> list[TableBody | MarkdownBody]:
    if not view.stages:
        return []
    return [MarkdownBody(artifact_key(name, view.preset), f"Stages of {_run_words(view)}", stages_markdown(view.stages))]


def ablation_bodies(metrics: Metrics, preset: str) -> list[TableBody | MarkdownBody]:
    """What `publish_ablation` creates: the table and the chart, or nothing."""
    rows = [_score_first(row, "mean mIoU") for row in ablation_rows(metrics)]
    table = TableBody(artifact_key("ablation", preset), ablation_note(metrics), rows)
    return [*_non_empty([table]), *_chart("ablation-chart", preset, "Ablation", ablation_picture(metrics))]


def figure_bodies(folder: Path, link: str = "") -> list[TableBody | MarkdownBody]:
    """What `publish_figures` creates: a page per figure."""
    document = read_json(folder / "figures.json")
    content = ", ".join(f"{image['class']} in {image['id']}" for image in document["images"])
    pages: list[TableBody | MarkdownBody] = []
    for number, title in document["figures"].items():
        file = folder / f"figure_{number}.png"
        picture = picture_page(f"figure {number}, {title}: {content}", file.read_bytes())
        page = f"{place('The figure alone', file, f'{link}/{file.name}' if link else '')}\n\n{picture}"
        run = f"preset {document['preset']}, {document['method']} method with {document['clip']}"
        key = artifact_key("figure", number, document["preset"])
        pages.append(MarkdownBody(key, f"Figure {number}: {title}; {run}", page))
    return pages


def benchmark_bodies(folder: Path, link: str = "") -> list[TableBody | MarkdownBody]:
    """What `publish_benchmark` creates: the tables with the page's path, and a page per picture."""
    document = read_json(folder / "benchmark.json")
    methods = ", ".join(method["name"] for method in document["methods"])
    words = f"{methods} on preset {document['preset']} with {document['clip']}"
    text = f"{place('The page with all pictures', folder / 'index.html', link)}\n\n{benchmark_markdown(document)}"
    pages: list[TableBody | MarkdownBody] = [
        MarkdownBody(artifact_key("benchmark", document["preset"]), f"Benchmark: {words}", text)
    ]
    for path in sorted(folder.glob("*.png")):
        name = path.stem.replace("_", " ")
        key = artifact_key("benchmark", name, document["preset"])
        pages.append(MarkdownBody(key, f"Benchmark, {name}: {words}", picture_page(f"{name}: {words}", path.read_bytes())))
    return pages


def score_bodies(folder: Path, change: Path) -> list[TableBody | MarkdownBody]:
    """What `publish_score` creates: the scores, the classes that were edited, the others that changed, and the pictures."""
    scores, document, picture = read_json(folder / "score.json"), read_json(change), change.with_suffix(".png")
    preset, run = scores["preset"], f"preset {scores['preset']}, {scores['method']} method with {scores['clip']}"
    runs = f"run {document['before']} → {document['after']}"
    tables = [
        _results(artifact_key("score", preset), f"Training-free label maps of {run}", scores),
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
    return [*_non_empty(tables), page]


def _class_tables(view: ReportView) -> list[TableBody]:
    """A table per family of results: a row per class, the IoU of each step, precision and recall of the last."""
    tables = []
    for family, keys in families(view.metrics).items():
        protocol = protocol_text(common_protocol(view.metrics, keys))
        description = f"{family}: {protocol}; precision and recall of {result_words(keys[-1])}"
        tables.append(TableBody(artifact_key("classes", view.preset, family), description, family_rows(view.metrics, keys)))
    return tables


def _results(key: str, description: str, metrics: Metrics) -> TableBody:
    """The results with intervals apart, in RESULT_ORDER. Long parts of protocols are explained in the description, which the UI
    shows whole."""
    rows, notes = footnoted([_with_mark(_score_first(row, "mIoU")) for row in results_rows(metrics)])
    if any(row["what"].endswith(MARK) for row in rows):
        notes.append(f"{MARK.strip()} the pseudo labels")
    ordered = [{column: row.get(column, ABSENT) for column in RESULT_ORDER} for row in rows]
    return TableBody(key, "; ".join([description, *notes]), ordered)


def _with_mark(row: Row) -> Row:
    """`CAM seed, the pseudo labels` → `CAM seed *`."""
    return row | {"what": row["what"].replace(", the pseudo labels", MARK)}


def _score_first(row: Row, column: str) -> Row:
    """The score in `column` before all else, as a number alone, and its interval behind all else."""
    score, _, interval = row[column].partition(" ")
    rest = {name: cell for name, cell in row.items() if name != column}
    return {column: score} | rest | {"interval": interval or ABSENT}


def _attribute_row(row: AttributeRow) -> Row:
    classes = ", ".join(f"{name} {weight:.3f}" for name, weight in row.classes)
    # Descriptions last: they are long, and the UI cuts a row at its width.
    return {"attribute": str(row.number), "classes that use it": classes, "nearest descriptions": " · ".join(row.descriptions)}


def _chart(name: str, preset: str, title: str, picture: Picture | None) -> list[TableBody | MarkdownBody]:
    """A page of one picture, described by its caption; no picture, no page."""
    if picture is None:
        return []
    return [MarkdownBody(artifact_key(name, preset), f"{title}: {picture.caption}", picture_page(picture.alt, picture.png))]


def _non_empty(tables: Sequence[TableBody]) -> list[TableBody | MarkdownBody]:
    return [table for table in tables if table.rows]
