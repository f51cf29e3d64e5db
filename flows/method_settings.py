"""Whether a run's settings fit its method, told before work starts. Knows no Prefect."""

from typing import Any

from excel_core.config import RunSpec
from excel_core.config.methods import METHODS
from excel_core.config.presets import preset
from excel_core.config.unused import changed_fields, is_below, leaves, unused_settings
from excel_core.errors import SettingError, and_more
from excel_core.models.clip_names import parse_clip_name
from tasks.inputs.models import cached_clip

__all__ = ["check_clip_fits_method", "check_method_settings"]

MAX_NAMED = 12  # settings in a message


def check_method_settings(run: RunSpec) -> None:
    """SettingError for an option of another method, naming the method's own ones; for descriptions that a mode needs and nobody
    gives; and for GradCAM in half precision, or with a training that does not exist."""
    method = preset(run.preset, run.method)
    own, changed = dict(leaves(method)), changed_fields(run, method)
    for (field, value), groups in unused_settings(run, method).items():
        unused = [name for name in changed if is_below(name, groups)]
        if unused:
            valid = [name for name in own if name.split(".")[0] == unused[0].split(".")[0] and not is_below(name, groups)]
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


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
