"""Whether a run's settings fit its method, told before work starts. Knows no Prefect."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from excel_core.config import RunSpec
from excel_core.config.methods import METHODS
from excel_core.config.presets import preset
from excel_core.errors import SettingError, and_more
from excel_core.models.clip_names import parse_clip_name
from tasks.inputs.models import cached_clip

__all__ = ["check_clip_fits_method", "check_method_settings"]

MAX_NAMED = 12  # settings in a message
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
    ("predict.protocol", "longest_side"): ("predict.flip", "predict.average_at"),
    ("predict.protocol", "whole_patches"): ("predict.flip", "predict.average_at"),
    ("train.enabled", False): ("train", "dynamic", "predict", "curve"),
    ("describe.provider", "none"): ("describe", "knowledge"),
}


def check_method_settings(run: RunSpec) -> None:
    """SettingError for an option of another method, naming the method's own ones; for descriptions that a mode needs and nobody
    gives; and for GradCAM in half precision, or with a training that does not exist."""
    own = dict(_leaves(preset(run.preset, run.method)))
    changed = [name for name, value in _leaves(run) if own[name] != value]
    for (field, value), groups in UNUSED.items():
        if own[field] != value or dict(_leaves(run))[field] != value:
            continue  # whoever chose it, or left it, knows
        unused = [name for name in changed if _is_below(name, groups)]
        if unused:
            valid = [name for name in own if name.split(".")[0] == unused[0].split(".")[0] and not _is_below(name, groups)]
            rest = f"; its settings of {unused[0].split('.')[0]}: {and_more(valid, MAX_NAMED)}" if valid else ""
            raise SettingError(f"{unused[0]}: method {run.method} ({field}={_text(value)}) does not use it{rest}")
    if run.describe.provider == "none" and run.knowledge.mode != "none":
        raise SettingError(
            f"knowledge.mode={run.knowledge.mode} needs descriptions, and describe.provider is none; "
            "valid with it: knowledge.mode=none"
        )
    if run.cams.producer == "gradcam" and run.cams.precision != "fp32":
        raise SettingError(f"cams.precision={run.cams.precision}: GradCAM is computed in fp32 alone; set fp32")
    if run.method.startswith("clip_es:") and run.train.enabled:
        raise SettingError(f"train.enabled: method {run.method} trains no segmenter; methods that do: {', '.join(_trained())}")


def check_clip_fits_method(run: RunSpec, device: str) -> None:
    """ModelError for weights of a file that GradCAM cannot use; they are loaded, once for the whole process."""
    if run.cams.producer == "gradcam" and parse_clip_name(run.clip.model).file is not None:
        _ = cached_clip(run.clip.model, device).logit_scale


def _trained() -> list[str]:
    """Methods that train a segmenter by default."""
    return [name for name in METHODS if preset("voc", name).train.enabled]


def _leaves(spec: BaseModel, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every field."""
    for name, value in spec:
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _is_below(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
