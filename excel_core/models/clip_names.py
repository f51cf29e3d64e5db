"""CLIPs by name: where a name's weights are, the model's sizes, and whether a run's settings fit it. Of a file of weights, only
the first bytes are read here.

A name is `excel-tiny` (the picture-book world's, shipped), `MODEL:TAG` (open_clip downloads it) or `MODEL:FILE`
(OpenAI's .pt, a safetensors file or an open_clip state dict).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.errors import ModelError, SettingError
from excel_core.models.weight_files import require_weights

__all__ = [
    "BUILT_IN_FOLDER", "TINY_CLIP", "WANTED_CLIP", "ClipSizes", "ClipSource", "check_settings_fit_clip", "clip_config",
    "clip_sizes", "parse_clip_name",
]  # fmt: skip

TINY_CLIP = "excel-tiny"
BUILT_IN_FOLDER = Path(__file__).parent  # where the weights of excel-tiny are
WANTED_CLIP = "give an open_clip or OpenAI checkpoint (.pt or .safetensors)"


@dataclass(frozen=True)
class ClipSource:
    """Where the weights of a `model` come from: a local `file`, or an open_clip `tag`. Exactly one of the two is set."""

    model: str
    file: Path | None = None
    tag: str | None = None


def parse_clip_name(name: str) -> ClipSource:
    """`name` → ClipSource; ModelError for an unknown model or tag, with the valid ones."""
    model, separator, weights = name.partition(":")
    if model == TINY_CLIP:
        return ClipSource(model, file=_weights_file(weights) if weights else BUILT_IN_FOLDER / "tiny_clip.safetensors")
    import open_clip  # which takes seconds, and excel-tiny needs none of it

    if model not in open_clip.list_models():
        plain = [m for m in open_clip.list_models() if m.startswith("ViT-") and "SigLIP" not in m]
        raise ModelError(f"unknown CLIP model {model!r}; {TINY_CLIP}, or one of open_clip's: {', '.join(plain)}")
    if not separator or not weights:
        raise ModelError(f"{name!r} names no weights; write {model}:TAG or {model}:FILE, e.g. {model}:openai")
    if Path(weights).suffix or "/" in weights or Path(weights).exists():
        return ClipSource(model, file=_weights_file(weights))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights.lower() not in tags:
        raise ModelError(f"{model} has no weights {weights!r}; valid: {', '.join(tags) or 'none, give a FILE'}")
    return ClipSource(model, tag=weights.lower())


def _weights_file(given: str) -> Path:
    """The path of a file that can be one of weights, as far as its first bytes tell; ModelError."""
    if not Path(given).is_file():
        raise ModelError(f"CLIP weights {given!r} do not exist; {WANTED_CLIP}")
    require_weights(Path(given), WANTED_CLIP)
    return Path(given)


@dataclass(frozen=True)
class ClipSizes:
    """`joint`: length D of text and patch embeddings; `patch`: side of a patch in pixels; `blocks` of the vision tower."""

    joint: int
    patch: int
    blocks: int


def clip_sizes(name: str) -> ClipSizes:
    """Sizes of the CLIP `name`, from its configuration; ModelError where its vision tower is no plain ViT."""
    model = parse_clip_name(name).model
    config = clip_config(model)
    tower = config["vision_cfg"]
    if not isinstance(tower["layers"], int):
        raise ModelError(f"{model} is not a plain CLIP: its vision tower is a ResNet; choose ViT-B-16 or ViT-L-14")
    return ClipSizes(config["embed_dim"], tower["patch_size"], tower["layers"])


def clip_config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model, or excel-tiny's own; ModelError for one that is no plain CLIP."""
    if model == TINY_CLIP:
        return json.loads((BUILT_IN_FOLDER / "tiny_clip.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    import open_clip

    config: dict[str, Any] = open_clip.get_model_config(model)
    unsupported = [key for key in ("multimodal_cfg", "custom_text") if config.get(key)]
    unsupported += [f"text_cfg.{key}" for key in ("hf_model_name",) if config["text_cfg"].get(key)]
    unsupported += [f"vision_cfg.{key}" for key in ("timm_model_name",) if config["vision_cfg"].get(key)]
    if unsupported:
        raise ModelError(f"{model} is not a plain CLIP: it has {', '.join(unsupported)}; choose ViT-B-16 or ViT-L-14")
    return config


def check_settings_fit_clip(run: RunSpec, sizes: ClipSizes | None = None) -> None:
    """Check settings against each other and against the CLIP's sizes (None: of the run's CLIP), before any work.

    SettingError for views of what is no square, or of GradCAM, for a side that is no multiple of the patch, for more calibrated
    or averaged blocks than the CLIP has, for a segmenter's width that its heads do not divide, and for scales in falling order.
    ModelError for a CLIP that is no ViT.
    """
    sizes = sizes or clip_sizes(run.clip.model)
    calibration, train = run.cams.calibration, run.train
    _check_views(run)
    sides = {"cams.image_size": run.cams.image_size} if run.cams.input == "square" else {}
    if train.enabled:
        sides |= {"train.crop": train.crop, "predict.image_size": run.predict.image_size}
    if run.cams.window is not None:
        sides["cams.window"] = run.cams.window
    for field, side in sides.items():
        if side % sizes.patch:
            next_multiple = (side // sizes.patch + 1) * sizes.patch
            raise SettingError(
                f"{field}={side}: expected a multiple of {sizes.patch}, patch of {run.clip.model}; set {next_multiple}"
            )
    blocks = {"refine.affinity.layers": run.refine.affinity.layers}
    if run.cams.producer == "gradcam" and run.cams.gradcam_skips > sizes.blocks - 2:
        raise SettingError(
            f"cams.gradcam_skips={run.cams.gradcam_skips}: {run.clip.model} has {sizes.blocks} blocks, of which the first and "
            "the last stay; lower it"
        )
    if calibration.attention not in ("qk", "proxy") and run.cams.producer == "patch_text":
        blocks["cams.calibration.depth"] = calibration.depth
    for field, count in blocks.items():
        if count > sizes.blocks:
            raise SettingError(f"{field}={count}: expected at most {sizes.blocks}, the blocks of {run.clip.model}; lower it")
    if calibration.middle_share and calibration.attention not in ("svc", "kk"):
        raise SettingError(
            f"cams.calibration.middle_share={calibration.middle_share:g}: is added to the attention svc or kk, got "
            f"cams.calibration.attention={calibration.attention}; set one of the two, or middle_share=0"
        )
    width, heads = train.segmenter.width, train.segmenter.heads
    if width % heads:
        raise SettingError(
            f"train.segmenter.width={width}: expected a multiple of train.segmenter.heads={heads}; change either"
        )
    if train.scale[0] > train.scale[1]:
        raise SettingError(f"train.scale={list(train.scale)}: expected the least first; swap the two")


def _check_views(run: RunSpec) -> None:
    """SettingError for windows or sides of what is no square or has no patch-text CAMs, and for a window that cannot slide."""
    cams = run.cams
    views = {"cams.window": cams.window is not None, "cams.scales": cams.scales != (1.0,)}
    for field in [name for name, is_set in views.items() if is_set]:
        if cams.producer != "patch_text" or cams.input != "square":
            raise SettingError(
                f"{field}: views are of a square input and of CAMs of patches against texts, got "
                f"cams.producer={cams.producer}, cams.input={cams.input}; leave {field} out, or choose --method excel or "
                "maskclip with cams.input=square"
            )
    if cams.window is not None and cams.window >= cams.image_size:
        raise SettingError(
            f"cams.window={cams.window}: expected less than cams.image_size={cams.image_size}, over which it slides; raise "
            "image_size, or leave the window out"
        )
