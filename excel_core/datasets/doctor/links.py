"""Links out of the data folder, which a run of any layout refuses: looked at first, since other checks read the files."""

from pathlib import Path

from excel_core.datasets.doctor.checks import MAX_EXAMPLES, Check
from excel_core.datasets.layouts import refused_links
from excel_core.datasets.links import LINK_ADVICE
from excel_core.errors import DataError

__all__ = ["examine_links"]


def examine_links(root: Path, layout: str) -> Check:
    """The check `links` of a data folder of this layout, by what a run refuses."""
    try:
        links = refused_links(root, layout)
    except DataError:  # of a folder of another layout; the checks that follow say it
        links = []
    if not links:
        return Check("links", "ok", "none leads out of the data folder")
    found = f"{len(links):,} out of the data folder"
    return Check("links", "problem", found, tuple(links[:MAX_EXAMPLES]), f"a run refuses them: {LINK_ADVICE}")
