"""curve.json as rows of text: pseudo labels and segmentation by iteration, beside the published log."""

from collections.abc import Mapping
from typing import Any

from artifacts.rows import Row, number
from artifacts.tables import protocol_text

__all__ = ["curve_note", "curve_rows"]


def curve_rows(curve: Mapping[str, Any]) -> list[Row]:
    """One row a split and iteration; columns of published figures where there are any."""
    published = any(row["published"] for row in curve.get("rows", []))
    rows = []
    for point in curve.get("rows", []):
        row = {"split": str(point["split"]), "iteration": f"{point['iteration']:,}"}
        for kind in ("pseudo_labels", "segmentation"):
            words = kind.replace("_", " ")
            row[words] = number(point[kind])
            if published:
                row[f"{words}, published"] = number((point["published"] or {}).get(kind))
        rows.append(row)
    return rows


def curve_note(curve: Mapping[str, Any]) -> str:
    """The protocol of all rows, and what was not scored."""
    skipped = [f"not scored: {images}: {reason}" for images, reason in curve.get("skipped", {}).items()]
    return "; ".join([protocol_text(curve["protocol"]), *skipped]) if curve.get("protocol") else ""
