"""Find and load a CLIP: the built-in one, an open_clip tag, or a local file; never unpickles code.

A name is `excel-tiny` (the picture-book world's, shipped), `MODEL:TAG` (open_clip downloads it) or `MODEL:FILE`
(OpenAI's .pt, a safetensors file or an open_clip state dict).
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.errors import ModelError
from excel_core.files import first_sentence, is_dense_tensor, load_tensors
from excel_core.models.clip import FrozenClip, VisionOnly, check_plain_vit
from excel_core.models.token_rows import expand_token_rows

__all__ = [
    "TINY_CLIP", "ClipSizes", "ClipSource", "clip_from_openai_state", "clip_sizes", "load_clip", "parse_clip_name",
    "vision_clip",
]  # fmt: skip

TINY_CLIP = "excel-tiny"
BUILT_IN = Path(__file__).parent  # where the weights of excel-tiny are
State = dict[str, Tensor]


@dataclass(frozen=True)
class ClipSource:
    """Where a model's weights come from: a local `file`, or an open_clip `tag`; exactly one of them is set."""

    model: str
    file: Path | None = None
    tag: str | None = None


def parse_clip_name(name: str) -> ClipSource:
    """`name` → ClipSource, refusing unknown models and tags with the valid ones, before anything is loaded."""
    import open_clip

    model, separator, weights = name.partition(":")
    if model == TINY_CLIP:
        return ClipSource(model, file=Path(weights) if weights else BUILT_IN / "tiny_clip.safetensors")
    if model not in open_clip.list_models():
        plain = [m for m in open_clip.list_models() if m.startswith("ViT-") and "SigLIP" not in m]
        raise ModelError(f"unknown CLIP model {model!r}; {TINY_CLIP}, or one of open_clip's: {', '.join(plain)}")
    if not separator or not weights:
        raise ModelError(f"{name!r} names no weights; write {model}:TAG or {model}:FILE, e.g. {model}:openai")
    if Path(weights).suffix or "/" in weights or Path(weights).exists():
        if not Path(weights).is_file():
            raise ModelError(f"CLIP weights {weights!r} do not exist; give the path of a .pt or .safetensors file")
        return ClipSource(model, file=Path(weights))
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights.lower() not in tags:
        raise ModelError(f"{model} has no weights {weights!r}; valid: {', '.join(tags) or 'none, give a FILE'}")
    return ClipSource(model, tag=weights.lower())


@dataclass(frozen=True)
class ClipSizes:
    """D, the length of text and patch embeddings; the side of a patch, pixels; the number of blocks of the vision tower."""

    joint: int
    patch: int
    blocks: int


def clip_sizes(name: str) -> ClipSizes:
    """Sizes of the CLIP `name`, by its description: no weights are read. ModelError where its tower is no plain ViT."""
    model = parse_clip_name(name).model
    config = _config(model)
    tower = config["vision_cfg"]
    if not isinstance(tower["layers"], int):
        raise ModelError(f"{model} is not a plain CLIP: its vision tower is a ResNet; choose ViT-B-16 or ViT-L-14")
    return ClipSizes(config["embed_dim"], tower["patch_size"], tower["layers"])


def load_clip(name: str, device: str = "cpu") -> FrozenClip:
    """Load `name` (see the module's docstring) in float32 onto `device`; ModelError says what to do instead."""
    import open_clip

    source = parse_clip_name(name)
    config = _config(source.model)
    if source.tag is not None:
        tagged = open_clip.get_pretrained_cfg(source.model, source.tag)
        state = _download(source, tagged)
        quick_gelu = bool(tagged.get("quick_gelu", False))  # the weights decide, whatever the model's name says
    else:
        assert source.file is not None
        state, from_openai = _read_state(source.file)
        quick_gelu = from_openai or bool(config.get("quick_gelu", False))
    state = expand_token_rows(state, config["text_cfg"].get("vocab_size", 49408))
    model = _build(config, quick_gelu)
    _fill(model, state, name)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    vision_config = {"embed_dim": config["embed_dim"], "vision_cfg": config["vision_cfg"], "quick_gelu": quick_gelu}
    check_plain_vit(model, name)
    return FrozenClip(model.to(device), tokenizer, name, vision_config)


def vision_clip(config: dict[str, Any], state: State, name: str) -> FrozenClip:
    """The vision tower alone, of `config` (FrozenClip.config) with the tensors of `state`; ModelError where they do not fit.

    Nothing is drawn at random and nothing copied: the tower is built without memory and takes the tensors as they are.
    """
    from open_clip.model import CLIP

    text = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}  # CLIP wants one; it is dropped here
    try:
        with torch.device("meta"):
            model = CLIP(config["embed_dim"], config["vision_cfg"], text, quick_gelu=config["quick_gelu"])
        model.visual.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError, KeyError) as error:
        raise ModelError(f"{name}: the vision tower's weights do not fit its description ({error})") from None
    check_plain_vit(model, name)
    return FrozenClip(VisionOnly(model.visual), None, name, config)


def clip_from_openai_state(state: State, quick_gelu: bool) -> FrozenClip:
    """A CLIP whose sizes are read from a state dict with OpenAI's names; heads are 64 wide, as in OpenAI's."""
    import open_clip
    from open_clip.model import build_model_from_openai_state_dict

    model = build_model_from_openai_state_dict(dict(state), quick_gelu=quick_gelu, cast_dtype=torch.float32)
    model.float().load_state_dict(state)  # again in full precision: the builder rounds through float16
    check_plain_vit(model, "OpenAI state dict")
    return FrozenClip(model, open_clip.SimpleTokenizer(context_length=model.context_length), "OpenAI state dict")


def _config(model: str) -> dict[str, Any]:
    import open_clip

    if model == TINY_CLIP:
        return json.loads((BUILT_IN / "tiny_clip.json").read_text())  # type: ignore[no-any-return]
    config: dict[str, Any] = open_clip.get_model_config(model)
    unsupported = [key for key in ("multimodal_cfg", "custom_text") if config.get(key)]
    unsupported += [f"text_cfg.{key}" for key in ("hf_model_name",) if config["text_cfg"].get(key)]
    unsupported += [f"vision_cfg.{key}" for key in ("timm_model_name",) if config["vision_cfg"].get(key)]
    if unsupported:
        raise ModelError(f"{model} is not a plain CLIP: it has {', '.join(unsupported)}; choose ViT-B-16 or ViT-L-14")
    return config


def _build(config: dict[str, Any], quick_gelu: bool) -> Any:
    from open_clip.model import CLIP

    fields = ("embed_dim", "vision_cfg", "text_cfg")
    return CLIP(**{field: config[field] for field in fields}, quick_gelu=quick_gelu)


def _fill(model: Any, state: State, name: str) -> None:
    """Copy `state` into `model`; another architecture's state is refused with the first differences."""
    own = model.state_dict()
    state = {key: value.float() for key, value in state.items() if key in own or value.ndim > 0}
    different = [
        f"{key}: file has {tuple(state[key].shape) if key in state else 'nothing'}, "
        f"the model {tuple(own[key].shape) if key in own else 'nothing'}"
        for key in sorted(own.keys() | state.keys())
        if key != "logit_scale" and (key not in own or key not in state or own[key].shape != state[key].shape)
    ]
    if different:
        shown = "; ".join(different[:3])
        raise ModelError(f"{name}: the weights are of another architecture ({len(different)} differences: {shown})")
    model.load_state_dict(state, strict=False)


def _read_state(file: Path) -> tuple[State, bool]:
    """A local file's state dict, and whether it is one of OpenAI's TorchScript archives (which need QuickGELU)."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file), False
        if _is_torchscript(file):
            state = torch.jit.load(str(file), map_location="cpu").state_dict()
            return {k: v for k, v in state.items() if k not in ("input_resolution", "context_length", "vocab_size")}, True
        loaded = load_tensors(file)
    except FileNotFoundError:
        raise ModelError(f"CLIP weights {str(file)!r} do not exist") from None
    except Exception as error:  # torch, zip and safetensors raise many kinds; all mean an unreadable file
        raise ModelError(
            f"{file}: not readable as weights ({first_sentence(error)}); give a .pt or .safetensors file"
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(is_dense_tensor(value) for value in state.values()):
        raise ModelError(f"{file}: holds no state dict of tensors; give an open_clip or OpenAI checkpoint")
    return {key.removeprefix("module."): value for key, value in state.items()}, False


def _is_torchscript(file: Path) -> bool:
    """A TorchScript archive is a zip with a `constants.pkl` beside its `data.pkl`."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


def _download(source: ClipSource, tagged: dict[str, Any]) -> State:
    from open_clip.pretrained import download_pretrained

    try:
        return _read_state(Path(download_pretrained(tagged)))[0]
    except ModelError:
        raise
    except Exception as error:  # the hub clients raise dozens of kinds; all mean that there is no file
        place = tagged.get("url") or tagged.get("hf_hub")
        raise ModelError(
            f"{source.model}:{source.tag} could not be downloaded ({type(error).__name__}). Without a network, fetch "
            f"{place} elsewhere and pass it as --clip {source.model}:/path/to/the/file"
        ) from None
