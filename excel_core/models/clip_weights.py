"""Load a CLIP by its name (clip_names.py), or from tensors. Never unpickles code.

Of the vocabulary's 49,408 token embeddings, excel-tiny's captions use a few hundred. Its file holds those rows alone, and a
tensor `token_embedding.rows` with their numbers.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.errors import ModelError
from excel_core.models.clip import FrozenClip, VisionOnly, check_plain_vit
from excel_core.models.clip_names import WANTED_CLIP, ClipSource, clip_config, parse_clip_name
from excel_core.models.torchscript_archive import is_torchscript
from excel_core.models.weight_files import load_state

__all__ = ["check_clip_file", "clip_from_openai_state", "expand_token_rows", "load_clip", "prune_token_rows", "vision_clip"]

VOCABULARY_SIZE = 49408  # of CLIP's tokeniser, where a configuration does not say
UNTRAINED_SIGMA = 0.02  # open_clip's initialisation of token embeddings
ROWS_KEY, EMBEDDING_KEY = "token_embedding.rows", "token_embedding.weight"
MAX_NAMED_DIFFERENCES = 3  # in a message
State = dict[str, Tensor]


@torch.inference_mode(False)  # whoever calls: GradCAM differentiates the tower
def load_clip(name: str, device: str = "cpu") -> FrozenClip:
    """Load the CLIP `name` in float32, its vision tower onto `device`, where the text tower comes with the first text;
    ModelError, with what to do, where it cannot be loaded."""
    import open_clip

    source = parse_clip_name(name)
    config = clip_config(source.model)
    if source.tag is not None:
        tagged = open_clip.get_pretrained_cfg(source.model, source.tag)
        state = _download(source, tagged)
        quick_gelu = bool(tagged.get("quick_gelu", False))  # the weights decide, whatever the model's name says
    else:
        assert source.file is not None
        state, from_openai = _read_state(source.file)
        quick_gelu = from_openai or bool(config.get("quick_gelu", False))
    state = expand_token_rows(state, config["text_cfg"].get("vocab_size", VOCABULARY_SIZE))
    model = _build_empty(config, quick_gelu)
    _fill(model, state, name)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    vision_config = {"embed_dim": config["embed_dim"], "vision_cfg": config["vision_cfg"], "quick_gelu": quick_gelu}
    check_plain_vit(model, name)
    model.visual.to(device)
    return FrozenClip(model, tokenizer, name, vision_config)


def check_clip_file(name: str) -> None:
    """ModelError unless the file that the CLIP `name` has its weights from, if it has one, is of that architecture. It is read,
    and no model is built."""
    source = parse_clip_name(name)
    if source.file is None:
        return
    config = clip_config(source.model)
    state, from_openai = _read_state(source.file)
    state = expand_token_rows(state, config["text_cfg"].get("vocab_size", VOCABULARY_SIZE))
    with torch.device("meta"):
        _checked(_build(config, from_openai), state, name)


@torch.inference_mode(False)
def vision_clip(config: dict[str, Any], state: State, name: str) -> FrozenClip:
    """The vision tower alone, of `config` (FrozenClip.config) with the tensors of `state`; ModelError where they do not fit."""
    from open_clip.model import CLIP

    text = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}  # required by CLIP, and dropped here
    try:
        # Built without memory, then given the tensors themselves: nothing is drawn at random or copied.
        with torch.device("meta"):
            model = CLIP(config["embed_dim"], config["vision_cfg"], text, quick_gelu=config["quick_gelu"])
        model.visual.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError, KeyError) as error:
        raise ModelError(f"{name}: the vision tower's weights do not fit its description ({error})") from None
    check_plain_vit(model, name)
    return FrozenClip(VisionOnly(model.visual), None, name, config)


@torch.inference_mode(False)
def clip_from_openai_state(state: State, quick_gelu: bool) -> FrozenClip:
    """A CLIP whose sizes are read from a state dict with OpenAI's names; heads are 64 wide, as in OpenAI's."""
    import open_clip
    from open_clip.model import build_model_from_openai_state_dict

    model = build_model_from_openai_state_dict(dict(state), quick_gelu=quick_gelu, cast_dtype=torch.float32)
    model.float().load_state_dict(state)  # again in full precision: the builder rounds through float16
    check_plain_vit(model, "OpenAI state dict")
    return FrozenClip(model, open_clip.SimpleTokenizer(context_length=model.context_length), "OpenAI state dict")


def expand_token_rows(state: Mapping[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """State dict with `token_embedding.weight` (vocab_size, D) in full; without `token_embedding.rows` a plain copy.

    A row that is not in the file is drawn from N(0, 0.02²) with a generator of seed 0, so that every user has the same.
    """
    full = dict(state)
    rows = full.pop(ROWS_KEY, None)
    if rows is None:
        return full
    known_rows = full[EMBEDDING_KEY]
    index = rows.long()
    if index.ndim != 1 or len(index) != len(known_rows) or index.min() < 0 or index.max() >= vocab_size:
        raise ModelError(
            f"{ROWS_KEY}: must be {len(known_rows)} row numbers below {vocab_size}, got shape {tuple(rows.shape)} "
            f"up to {int(index.max())}; take weights and model configuration from the same place"
        )
    drawn = torch.randn(vocab_size, known_rows.shape[1], generator=torch.Generator().manual_seed(0)) * UNTRAINED_SIGMA
    weight = drawn.to(known_rows.dtype)
    weight[index] = known_rows
    full[EMBEDDING_KEY] = weight
    return full


def prune_token_rows(state: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Inverse of `expand_token_rows` for the sorted row numbers `rows` (R,) int: keeps those rows only."""
    pruned = dict(state)
    pruned[EMBEDDING_KEY] = state[EMBEDDING_KEY][rows.long()].clone()
    pruned[ROWS_KEY] = rows.to(torch.int32)
    return pruned


def _build(config: dict[str, Any], quick_gelu: bool) -> Any:
    from open_clip.model import CLIP

    fields = ("embed_dim", "vision_cfg", "text_cfg")
    return CLIP(**{field: config[field] for field in fields}, quick_gelu=quick_gelu)


def _build_empty(config: dict[str, Any], quick_gelu: bool) -> Any:
    """The model on the CPU without values, which `_fill` brings: drawing random weights first would take longer than reading a
    file's."""
    with torch.device("meta"):
        model = _build(config, quick_gelu)
    model.to_empty(device="cpu")
    if model.attn_mask is not None:  # the one tensor that no file holds: no token looks ahead
        model.attn_mask = torch.full(model.attn_mask.shape, float("-inf")).triu_(1)
    return model


def _fill(model: Any, state: State, name: str) -> None:
    """Copy `state` into `model`; another architecture's state is refused with the first differences."""
    state = _checked(model, state, name)
    model.load_state_dict(state, strict=False)  # in the model's own precision
    if "logit_scale" not in state:
        model.logit_scale = None  # not open_clip's initial value, which no training chose


def _checked(model: Any, state: State, name: str) -> State:
    """The tensors of `state` that are weights. ModelError, with the first differences, unless they are those of `model`."""
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    # Unknown scalars are no weights, but settings that some files hold.
    state = {key: value for key, value in state.items() if key in expected or value.ndim > 0}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    different = [key for key in sorted(expected.keys() | shapes.keys()) if expected.get(key) != shapes.get(key)]
    differences = [
        f"{key}: file has {shapes.get(key, 'nothing')}, the model {expected.get(key, 'nothing')}"
        for key in different
        if key != "logit_scale"  # of CLIP's loss and GradCAM alone; files may lack it
    ]
    if differences:
        named = "; ".join(differences[:MAX_NAMED_DIFFERENCES])
        raise ModelError(f"{name}: the weights are of another architecture ({len(differences)} differences: {named})")
    return state


def _read_state(file: Path) -> tuple[State, bool]:
    """A local file's state dict, and whether it is one of OpenAI's TorchScript archives (which need QuickGELU)."""
    state = load_state(file, WANTED_CLIP)
    if not is_torchscript(file):
        return state, False
    return {key: value for key, value in state.items() if key not in ("input_resolution", "context_length", "vocab_size")}, True


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
