"""Which settings of a run are not those of its preset, and in which two runs differ."""

from functools import cache
from typing import Any

from excel_core.config.presets import preset
from excel_core.errors import ExcelError
from tasks.history.run_record import RunRecord

__all__ = ["changed_settings", "spec_differences"]


def changed_settings(record: RunRecord) -> dict[str, Any]:
    """{dotted field: value} of every setting that differs from the run's preset under its method, as this version has them;
    empty for a run of another version that this one cannot read."""
    try:
        run = record.run
        plain = _plain_preset(run.preset, run.method)
    except ExcelError:
        return {}
    return {entry["field"]: entry["b"] for entry in spec_differences(plain, run.model_dump(mode="json"))}


@cache
def _plain_preset(name: str, method: str) -> dict[str, Any]:
    return preset(name, method).model_dump(mode="json")


def spec_differences(a: dict[str, Any], b: dict[str, Any], path: str = "") -> list[dict[str, Any]]:
    """[{field, a, b}] of every field, dotted, in which two dumped specs differ."""
    differences = []
    for name in dict.fromkeys((*a, *b)):
        field, one, other = f"{path}{name}", a.get(name), b.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            differences += spec_differences(one, other, f"{field}.")
        elif one != other:
            differences.append({"field": field, "a": one, "b": other})
    return differences
