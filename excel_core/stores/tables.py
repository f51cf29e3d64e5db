"""Tables of the store as Parquet: the manifest, and counts and scores by image."""

from pathlib import Path

import pandas as pd

from excel_core.datasets.manifest import check_manifest
from excel_core.files import written_then_renamed
from excel_core.stores.damage import refuse_damaged

__all__ = ["read_counts", "read_manifest", "write_counts", "write_manifest", "write_table"]


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write a manifest (see datasets/manifest.py) as Parquet."""
    write_table(path, manifest)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest; its `labels` column holds lists of class names."""
    with refuse_damaged(path, "dataset"):
        manifest = pd.read_parquet(path)
        manifest["labels"] = [list(labels) for labels in manifest["labels"]]
        return check_manifest(manifest)  # among others, that no image lies outside the data folder


def write_counts(path: Path, counts: pd.DataFrame) -> None:
    """Write a table of pixel counts (confusion.parquet, levels.parquet) or scores by image as Parquet."""
    write_table(path, counts)


def read_counts(path: Path) -> pd.DataFrame:
    """Read what `write_counts` wrote."""
    with refuse_damaged(path, "the stage that writes it"):
        return pd.read_parquet(path)


def write_table(path: Path, table: pd.DataFrame, row_group: int | None = None) -> None:
    """`row_group`: rows that are read together, or passed over."""
    with written_then_renamed(path) as temporary:
        table.to_parquet(temporary, index=False, row_group_size=row_group)
