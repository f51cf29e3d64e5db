"""Presets say what a data set needs, methods (methods.py) how to compute; together with edits they make a run's spec."""

from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from excel_core.config import RunSpec
from excel_core.config.methods import METHODS, Edits, parse_method
from excel_core.config.setting_text import read_setting
from excel_core.errors import SettingError, shown

__all__ = [
    "PRESETS", "SCHEDULE", "preset", "with_edits", "with_iterations", "with_method", "with_settings", "with_users_edits",
]  # fmt: skip

# Fields of `train` that are points of its schedule: iterations, counted from 0.
SCHEDULE = ("warmup", "dynamic_from", "own_argmax_from", "own_labels_from", "guided_from")

# Each preset holds only what differs from config/'s defaults, which are VOC's published hyper-parameters.
PRESETS: dict[str, dict[str, Any]] = {
    "voc": {},
    "coco": {
        "dataset": {"layout": "coco", "prompts": "coco", "train_split": "train"},
        "knowledge": {"attributes": 224},
        "refine": {"affinity": {"threshold": 0.88}},
        "train": {
            "iterations": 100_000,
            "warmup": 200,
            "dynamic_from": 30_000,
            "own_argmax_from": None,
            "crop_rule": "random",
            "order_seed": 68_268,
        },
        "predict": {"flip": "all", "average_at": 0.2},
        "shards": {"keep_attention": False},  # else 21 GB
    },
    # A folder of one's own photos, its classes told by the folder; all photos are segmented by what they trained. The
    # schedule is VOC's, cut to what hundreds of photos need; no published figure stands behind it.
    "photos": {
        "dataset": {
            "layout": "folder",
            "prompts": "data",
            "train_split": "train",
            "val_splits": ("train",),
            "max_bad": 0.2,
            "max_side": 1024,
        },
        "knowledge": {"attributes": None},
        "train": {"iterations": 4000, "dynamic_from": 1900, "own_argmax_from": 3200},
        "predict": {"flip": "all", "sides": "whole_patches"},
        "quality": {"enabled": True},
    },
    # The picture-book world on a CPU in minutes: smaller pictures, a smaller CLIP, a shorter schedule.
    "demo": {
        "dataset": {
            "layout": "world",
            "prompts": "world",
            "train_split": "train",
            "val_splits": ("held_out_1", "held_out_2", "held_out_3"),
        },
        "clip": {"model": "excel-tiny"},
        "knowledge": {"attributes": 64},
        "cams": {"image_size": 128, "normalisation": "clip", "batch_size": 32},
        # Chosen on training scenes. PAR's dilations, in pixels, are for pictures of 320 and more.
        "refine": {"affinity": {"threshold": 0.55}, "par": {"dilations": (1, 2, 4, 8)}},
        "train": {
            "segmenter": {"width": 64},
            "iterations": 300,
            "crop": 128,
            "dynamic_from": 150,
            "own_argmax_from": 240,
            "checkpoint_every": 50,
        },
        "predict": {"image_size": 128, "sides": "whole_patches"},
        "evaluate": {"ablation": True},
        "ablation": {"second_encoder": "dino-tiny"},
        "benchmark": {"seeds": 2, "iterations": 150},  # several trainings within minutes
        "quality": {"enabled": True},
        "shards": {"images": 32},
    },
}

SpecT = TypeVar("SpecT", bound=BaseModel)
MAX_KEYS = 8  # of a field's dotted name; none has as many


def preset(name: str, method: str = "excel") -> RunSpec:
    """The run of a preset under a method; unknown names raise SettingError with the valid ones."""
    if name not in PRESETS:
        raise SettingError(f"unknown preset {name!r}; valid presets: {', '.join(PRESETS)}")
    variant = ":".join(parse_method(method))
    run = _apply(RunSpec(preset=name, method=variant), PRESETS[name])
    for edits in _edits_of(variant, name):
        run = _apply(run, edits)
    return run


def _edits_of(method: str, preset: str) -> list[Edits]:
    name, variant = parse_method(method)
    return METHODS[name][variant].all_edits(preset)


def with_settings(run: RunSpec, settings: list[str]) -> RunSpec:
    """`run` with every `stage.field=value` of `settings` applied; values are YAML scalars or lists."""
    for setting in settings:
        path, separator, text = setting.partition("=")
        keys = path.strip().split(".")
        if not separator or len(keys) < 2:
            raise SettingError(f"--set {shown(setting)}: expected stage.field=value, e.g. refine.par.iterations=10")
        if len(keys) > MAX_KEYS:
            raise SettingError(f"--set {shown(setting)}: no field has {len(keys)} names; e.g. refine.par.iterations=10")
        try:
            value = read_setting(text)
        except SettingError as error:
            raise SettingError(f"--set {shown(setting)}: {error}") from None
        edit: dict[str, Any] = {keys[-1]: value}
        for key in reversed(keys[:-1]):
            edit = {key: edit}
        run = _apply(run, edit)
    return run


def with_edits(run: RunSpec, edits: dict[str, Any]) -> RunSpec:
    """`run` with the nested `edits`, {stage: {field: value}}, merged in; what they do not name stays."""
    return _apply(run, edits)


def with_iterations(run: RunSpec, iterations: int) -> RunSpec:
    """`run` with a longer or shorter training: the points of its schedule move in proportion."""
    factor = iterations / run.train.iterations
    points = {name: getattr(run.train, name) for name in SCHEDULE}
    moved = {name: round(factor * point) for name, point in points.items() if point is not None}
    return _apply(run, {"train": {"iterations": iterations} | moved})


def with_method(run: RunSpec, method: str) -> RunSpec:
    """`run` as another method computes it: what a user changed stays, everything else is what `method` makes it."""
    return with_users_edits(run, preset(run.preset, run.method), preset(run.preset, method))


def with_users_edits(run: SpecT, before: SpecT, after: SpecT, leave_out: Collection[str] = (), path: str = "") -> SpecT:
    """`after` with every field in which `run` differs from `before`, which `run` was made of by a user's edits; but fields and
    groups whose dotted name is in `leave_out` stay as `after` has them."""
    values = {}
    for name in type(run).model_fields:
        current, old, new = (getattr(spec, name) for spec in (run, before, after))
        if f"{path}{name}" in leave_out:
            values[name] = new
        elif isinstance(current, BaseModel):
            values[name] = with_users_edits(current, old, new, leave_out, f"{path}{name}.")
        else:
            values[name] = new if current == old else current
    return type(run)(**values)


def _apply(spec: SpecT, edit: dict[str, Any], path: str = "") -> SpecT:
    """`spec` with the nested `edit` merged in and validated; errors name the dotted field."""
    fields = type(spec).model_fields
    values = dict(spec)
    for key, value in edit.items():
        if key not in fields or (not path and key in ("preset", "method")):
            valid = [name for name in fields if path or name not in ("preset", "method")]
            raise SettingError(f"unknown field {shown(f'{path}{key}')}; valid fields: {', '.join(path + v for v in valid)}")
        current = values[key]
        if isinstance(current, BaseModel):
            if not isinstance(value, dict):
                inner = ", ".join(f"{path}{key}.{name}" for name in type(current).model_fields)
                raise SettingError(f"{path + key!r} is a group; set one of its fields: {inner}")
            value = _apply(current, value, f"{path}{key}.")
        values[key] = value
    try:
        return type(spec)(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        field = path + ".".join(str(part) for part in problem["loc"])
        raise SettingError(f"{field}: {problem['msg']}; got {shown(problem['input'])}") from None
