"""Which of a run's results is shown first: one answer for the report, Prefect's pages, `excel runs` and `excel compare`."""

from collections.abc import Mapping
from typing import Any

__all__ = ["families", "headline_key", "headline_keys"]


def families(metrics: Mapping[str, Any]) -> dict[str, list[str]]:
    """The result keys of each family in order: `seeds.lvc.train` has its `.raw` … `.crf`."""
    keys_by_family: dict[str, list[str]] = {}
    for key in metrics.get("results", {}):
        keys_by_family.setdefault(key.rpartition(".")[0], []).append(key)
    return keys_by_family


def headline_keys(metrics: Mapping[str, Any]) -> list[str]:
    """The last result of each family, e.g. the fully refined seeds of `seeds.lvc.train`, in order."""
    return [keys[-1] for keys in families(metrics).values()]


def headline_key(metrics: Mapping[str, Any]) -> str | None:
    """The one result to show first: segmentation of the first split where there is one, else the last seeds."""
    keys = headline_keys(metrics)
    return next((key for key in keys if key.startswith("segmentation.")), keys[-1] if keys else None)
