"""Which settings a method's choices leave without effect."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel

from excel_core.config import RunSpec

__all__ = ["changed_fields", "is_below", "leaves", "unused_settings"]

# What a choice leaves without effect: (field, its value) → settings, or whole groups of them.
UNUSED: dict[tuple[str, Any], tuple[str, ...]] = {
    ("cams.producer", "gradcam"): (
        *("cams.features", "cams.surgery", "cams.minmax", "cams.calibration", "dynamic.mirror"),
        *("train.keep_every", "curve"),  # the learning curve is of ExCEL's published log
    ),
    ("cams.producer", "patch_text"): ("cams.gradcam_skips", "train.guided_from"),
    ("cams.input", "native"): ("cams.image_size", "cams.antialias", "cams.batch_size", "shards.keep_attention"),
    ("cams.input", "longest_side"): ("cams.batch_size", "shards.keep_attention"),
    ("cams.input", "whole_patches"): ("cams.batch_size", "shards.keep_attention"),
    ("predict.protocol", "longest_side"): ("predict.flip", "predict.average_at", "predict.sides"),
    ("predict.protocol", "whole_patches"): ("predict.flip", "predict.average_at", "predict.sides"),
    ("train.enabled", False): ("train", "dynamic", "predict", "curve"),
    ("describe.provider", "none"): ("describe", "knowledge"),
    ("dino.model", None): ("dino",),  # a benchmark sets it for the methods that have a second encoder
}


def unused_settings(run: RunSpec, method: RunSpec) -> dict[tuple[str, Any], tuple[str, ...]]:
    """The choices of `method`, a preset under it, that `run` keeps, and what each leaves without effect: settings, or whole
    groups. Whoever chose otherwise, or chose it for a method of another kind, knows."""
    own, asked = dict(leaves(method)), dict(leaves(run))
    return {(field, value): groups for (field, value), groups in UNUSED.items() if own[field] == value == asked[field]}


def changed_fields(run: RunSpec, method: RunSpec) -> list[str]:
    """Dotted names of the fields in which `run` differs from `method`."""
    own = dict(leaves(method))
    return [name for name, value in leaves(run) if own[name] != value]


def leaves(spec: BaseModel, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field."""
    for name, value in spec:
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def is_below(name: str, groups: Iterable[str]) -> bool:
    """Whether a dotted name is one of the groups or lies in one."""
    return any(name == group or name.startswith(f"{group}.") for group in groups)
