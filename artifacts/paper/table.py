"""A table of the paper (table.json, excel-paper/1): our numbers beside the published ones, with the protocol of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from artifacts.rows import ABSENT, Row, columns, markdown_table, markdown_text, per_cent, per_cent_interval
from artifacts.tables import protocol_text, shared_protocol

__all__ = ["joined_tables", "paper_markdown", "paper_rows", "print_paper"]

PUBLISHED = "published"  # the column
NO_REPRODUCTION = "no reproduction"
PaperTable = Mapping[str, Any]


def joined_tables(tables: Sequence[PaperTable]) -> dict[str, Any]:
    """The rows of several data sets' tables as one table, with the first one's title and all presets' names. Where rows of
    two data sets have the same name, every row is named with its preset."""
    names = [row["row"] for table in tables for row in table["rows"]]
    ambiguous = len(set(names)) < len(names)
    rows = []
    for table in tables:
        for row in table["rows"]:
            rows.append({**row, "row": f"{table['preset'].upper()} {row['row']}"} if ambiguous else row)
    return {**tables[0], "preset": ", ".join(dict.fromkeys(table["preset"] for table in tables)), "rows": rows}


def paper_rows(table: PaperTable) -> list[Row]:
    """mIoU in per cent: ours with its 95 % interval over images, and the published one, in brackets where the run was limited
    to some images. Remarks: the note, and the fields of the protocol that differ between rows; `paper_notes` has the rest."""
    limited, shared = table.get("limit") is not None, _shared_protocol(table)
    rows = []
    for entry in table["rows"]:
        row = {"row": str(entry["row"]), "ours": per_cent_interval(entry, "ours")}
        row |= {column: entry[column] for column in ("host GiB", "GPU GiB") if column in entry}  # table 7
        published = per_cent(entry[PUBLISHED])
        row[PUBLISHED] = f"({published})" if limited and published != ABSENT else published
        protocol = {field: value for field, value in entry.get("protocol", {}).items() if field not in shared}
        remarks = [text for text in (protocol_text(protocol), entry.get("note")) if text]
        rows.append(row | {"remarks": "; ".join(remarks)})
    # A column without a remark is left out: terminals are narrow.
    if not any(row["remarks"] for row in rows):
        return [{column: value for column, value in row.items() if column != "remarks"} for row in rows]
    return rows


def _shared_protocol(table: PaperTable) -> dict[str, Any]:
    """The fields of the protocol that all rows with a protocol share."""
    return shared_protocol([row["protocol"] for row in table["rows"] if row.get("protocol")])


def print_paper(table: PaperTable, console: Console) -> None:
    """Print the table. Where the run was limited to some images, the published column is grey and a note says why."""
    limited = table.get("limit") is not None
    rows = paper_rows(table)
    printed = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=Text(table["title"]), title_justify="left", title_style="bold"
    )
    for column in columns(rows):
        grey = "bright_black" if limited and column == PUBLISHED else ""
        printed.add_column(Text(column, style=grey), style=grey, no_wrap=column not in ("row", "remarks"), overflow="fold")
    for row in rows:
        printed.add_row(*(Text(row.get(column, ABSENT)) for column in columns(rows)))
    console.print(printed)
    for note in paper_notes(table):
        console.print(Text(note, style="dim"))
    console.print()


def paper_notes(table: PaperTable) -> list[str]:
    """Notes below the table: preset, method, CLIP, the shared protocol, and the limit."""
    run = f"preset {table['preset']}, method {table['method']}, CLIP {table['clip']}"
    if table["table"] == "table-7":
        notes = [run, "time and peak memory are what building took, whenever that was"]
    else:
        notes = [run, protocol_text(_shared_protocol(table))]
        notes.append("mIoU in per cent over the classes in the truth; [ ] 95 % bootstrap interval over images")
        notes += [f"{row['row']}: {row['archive']}" for row in table["rows"] if row.get("archive")]
    if table.get("limit") is not None:
        notes.append(
            f"{NO_REPRODUCTION}: {table['limit']} images a split and a shortened training; the published figures are of the "
            "whole data set and stand in brackets"
        )
    return [note for note in notes if note]


def paper_markdown(table: PaperTable) -> str:
    """The same as Markdown, for the Prefect UI."""
    notes = [f"- {markdown_text(note)}" for note in paper_notes(table)]
    return "\n\n".join([f"## {markdown_text(table['title'])}", markdown_table(paper_rows(table)), "\n".join(notes)]) + "\n"
