"""An artifact before it is written: its key, its description, and its table or Markdown page."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.drawing import bounded_data_uri
from artifacts.rows import Row, markdown_text

__all__ = [
    "MAX_MARKDOWN_BYTES", "Body", "MarkdownBody", "TableBody", "artifact_key", "non_empty", "picture_page", "slug",
]  # fmt: skip

RESERVED_BYTES = 10_000  # of a picture's page, for what is around it: a path may be long
MAX_MARKDOWN_BYTES = 400_000  # artifacts lie in the server's database


@dataclass(frozen=True)
class TableBody:
    """A table artifact: its rows, and their protocol as description."""

    key: str
    description: str
    rows: list[Row]

    type = "table"

    @property
    def data(self) -> str:
        """As Prefect stores it."""
        return json.dumps(self.rows)


@dataclass(frozen=True)
class MarkdownBody:
    """A Markdown artifact of at most MAX_MARKDOWN_BYTES."""

    key: str
    description: str
    markdown: str

    type = "markdown"

    @property
    def data(self) -> str:
        """As Prefect stores it."""
        return self.markdown


Body = TableBody | MarkdownBody


def picture_page(alt: str, png: bytes) -> str:
    """A picture alone; with a line above it, of at most MAX_MARKDOWN_BYTES."""
    text = markdown_text(alt)
    max_length = MAX_MARKDOWN_BYTES - len(text.encode()) - RESERVED_BYTES
    return f"![{text}]({bounded_data_uri(png, max_length)})\n"


def non_empty(tables: Sequence[TableBody]) -> list[Body]:
    """The tables that have rows."""
    return [table for table in tables if table.rows]


def artifact_key(name: str, *parts: str) -> str:
    """`excel-NAME-PART…`, the same from run to run."""
    return slug("excel", name, *parts)


def slug(*parts: str) -> str:
    """Lowercase letters, digits and dashes, as Prefect asks."""
    cleaned = (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    return "-".join(filter(None, cleaned))
