"""What all of our Prefect artifacts have in common: how their keys are made, and a page of one picture."""

import re

from artifacts.drawing import bounded_data_uri
from artifacts.rows import markdown_text

__all__ = ["MAX_MARKDOWN_BYTES", "artifact_key", "picture_page", "slug"]

MAX_MARKDOWN_BYTES = 400_000  # artifacts lie in the server's database
RESERVED_BYTES = 10_000  # of a picture's page, for what is around it: a path may be long


def artifact_key(name: str, *parts: str) -> str:
    """`excel-NAME-PART…`, stable from run to run, so that the UI shows an artifact's history."""
    return slug("excel", name, *parts)


def slug(*parts: str) -> str:
    """Lowercase letters, digits and dashes, as Prefect asks."""
    cleaned = (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    return "-".join(filter(None, cleaned))


def picture_page(alt: str, png: bytes) -> str:
    """A picture alone; with a line above it, of at most MAX_MARKDOWN_BYTES."""
    text = markdown_text(alt)
    max_length = MAX_MARKDOWN_BYTES - len(text.encode()) - RESERVED_BYTES
    return f"![{text}]({bounded_data_uri(png, max_length)})\n"
