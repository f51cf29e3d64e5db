"""Pages of a stage that ran alone, in Markdown for the Prefect UI: images of a data set, descriptions, what moved since an
earlier run. What stages have in common, tables of scores, pictures and charts, is in artifacts/prefect_artifacts/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifacts.history import class_change_rows
from artifacts.rows import ABSENT, Row, markdown_table, markdown_text

if TYPE_CHECKING:  # at run time they would load torch, for which nobody has to wait who reads no knowledge base
    from excel_core.text.knowledge_diff import ClassChange

__all__ = ["StagePage", "changes_page", "images_page", "texts_page"]

MAX_LISTED = 50  # images that could not be used
MAX_BYTES = 400_000  # of a page: artifacts lie in the server's database


@dataclass(frozen=True)
class StagePage:
    """A page, what its key is called, and what it shows in a few words."""

    name: str
    title: str
    markdown: str


def images_page(splits: Sequence[Row], classes: Sequence[Row], bad: Mapping[str, str]) -> StagePage:
    """A row per split, a row per class, and the images that cannot be used, each with its reason."""
    note = "no object: left out, since no class is in the image; absent: listed, but not in the data folder"
    blocks = ["# Images\n", markdown_table(splits), f"{note}\n", "## Images of each class\n", markdown_table(classes)]
    if bad:
        blocks.append(f"## {len(bad):,} images cannot be used\n")
        blocks.append("".join(f"* {markdown_text(f'{image}: {why}')}\n" for image, why in list(bad.items())[:MAX_LISTED]))
    if len(bad) > MAX_LISTED:
        blocks.append(f"{len(bad) - MAX_LISTED:,} more are in the manifest, column `error`.\n")
    return StagePage("dataset", "Images, their splits and classes", "\n".join(blocks))


def texts_page(texts: Mapping[str, Sequence[str]], provenance: Mapping[str, str]) -> StagePage:
    """The descriptions of each class, under its name; at the end, how many classes there was no room for."""
    source = "; ".join(f"{name}: {value}" for name, value in provenance.items())
    count = sum(map(len, texts.values()))
    blocks = ["# Descriptions\n", f"{count:,} texts of {len(texts):,} classes. {markdown_text(source)}\n"]
    bytes_left, shown = MAX_BYTES - 1000 - len("".join(blocks).encode()), 0
    for name, lines in texts.items():
        block = f"## {markdown_text(name)}\n\n" + "".join(f"* {markdown_text(line)}\n" for line in lines)
        bytes_left -= len(block.encode()) + 1
        if bytes_left < 0:
            break
        blocks.append(block)
        shown += 1
    if shown < len(texts):
        blocks.append(f"{len(texts) - shown:,} more classes are in descriptions.json.\n")
    return StagePage("texts", f"{count:,} descriptions of {len(texts):,} classes", "\n".join(blocks))


def changes_page(earlier: str, changes: "Sequence[ClassChange]") -> StagePage:
    """What moved in the knowledge base since an `earlier` run: a row per class that changed, then its texts and attributes."""
    rows = class_change_rows(changes)
    same = f"{len(changes) - len(rows):,} of {len(changes):,} classes are as in run {earlier}."
    short = [{name: cell for name, cell in row.items() if not name.startswith("attributes")} for row in rows]
    blocks = ["# What changed in the knowledge base\n", f"{markdown_text(same)}\n", markdown_table(short)]
    by_class = {change.name: change for change in changes}
    blocks += [_change_text(by_class[row["class"]], row) for row in rows]
    markdown = "\n".join(blocks)
    if len(markdown.encode()) > MAX_BYTES:  # the texts are in the runs' own pages
        markdown = "\n".join([*blocks[:3], "There are too many texts for this page: `excel prompts diff` shows them.\n"])
    return StagePage("texts-diff", f"What changed in the knowledge base since run {earlier}", markdown)


def _change_text(change: "ClassChange", row: Row) -> str:
    """A class's texts, − gone and + come, and the attributes that it weighs most for now or did before."""
    lines = [f"{mark} {text}" for mark, texts in (("−", change.removed), ("+", change.added)) for text in texts]
    for name in ("attributes in", "attributes out"):
        if row[name] != ABSENT:
            lines.append(f"{name}: {row[name].replace(chr(10), '; ')}")
    return "\n".join([f"## {markdown_text(change.name)}\n", *(f"* {markdown_text(line)}" for line in lines), ""])
