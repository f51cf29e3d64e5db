"""The published names of neck, head and the CLIP's layers, and the segmenter of a state dict with these names (method 7).

decoder_fts_fuse.*            the neck; `neck.*` in the golden arrays
dino_decoder_fts_fuse.*       WeCLIP+'s second neck
decoder.*                     the head and its classifier
encoder.visual.transformer.resblocks.N.attn.qkv, .proj    in_proj and out_proj of a calibrated block
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from excel_core.config import SegmenterSpec
from excel_core.errors import ModelError
from excel_core.models.segmenter import Segmenter

__all__ = [
    "CALIBRATED",
    "HEAD",
    "NECK",
    "PUBLISHED_DEPTH",
    "PUBLISHED_HEADS",
    "SECOND_NECK",
    "SegmenterSizes",
    "State",
    "clip_name",
    "list_names",
    "published_clip_name",
    "published_name",
    "published_segmenter",
    "require_names",
    "segmenter_sizes",
]  # fmt: skip

State = dict[str, Tensor]
NECK, HEAD, SECOND_NECK = "decoder_fts_fuse.", "decoder.", "dino_decoder_fts_fuse."
PUBLISHED_HEADS = 8  # attention heads of the head's layers, which no shape tells
PUBLISHED_DEPTH = 5  # calibrated blocks, counted from the last
MAX_NAMES = 3  # in a message

# Segmenter's own names → the published ones.
NECK_AND_HEAD = (
    (re.compile(r"^neck\.adapters\.(\d+)\.0\."), rf"{NECK}linears_modulelist.\1.proj."),
    (re.compile(r"^neck\.adapters\.(\d+)\.2\."), rf"{NECK}linears_modulelist.\1.proj_2."),
    (re.compile(r"^neck\.fuse\."), f"{NECK}linear_fuse."),
    (re.compile(r"^second_neck\.adapters\.(\d+)\.0\."), rf"{SECOND_NECK}linears_modulelist.\1.proj."),
    (re.compile(r"^second_neck\.adapters\.(\d+)\.2\."), rf"{SECOND_NECK}linears_modulelist.\1.proj_2."),
    (re.compile(r"^second_neck\.fuse\."), f"{SECOND_NECK}linear_fuse."),
    (re.compile(r"^head\."), f"{HEAD}transformer.resblocks."),
    (re.compile(r"^classifier\."), f"{HEAD}linear_pred."),
)
CALIBRATED = re.compile(r"^(visual\.transformer\.resblocks\.(\d+)\.attn)\.(qkv|proj)\.(weight|bias)$")
PLAIN = re.compile(r"^(visual\.transformer\.resblocks\.(\d+)\.attn)\.(in_proj_|out_proj\.)(weight|bias)$")


@dataclass(frozen=True)
class SegmenterSizes:
    """Sizes of a segmenter, from its shapes: C classes without background, L blocks of the CLIP and their width D_s, the width
    D_d of neck and head, and the number of layers of the head."""

    classes: int
    blocks: int
    token_width: int
    width: int
    layers: int

    def require(self, expected: "SegmenterSizes", name: str) -> None:
        """ModelError with the sizes that differ from `expected`, and the settings to change; `name` is the checkpoint's."""
        change = {
            "classes": "dataset.prompts",
            "blocks": "--clip",
            "token_width": "--clip",
            "width": "train.segmenter.width",
            "layers": "train.segmenter.layers",
        }
        wrong = [field.name for field in fields(self) if getattr(self, field.name) != getattr(expected, field.name)]
        if wrong:
            words = [f"{key.replace('_', ' ')} {getattr(expected, key)}, got {getattr(self, key)}" for key in wrong]
            settings = ", ".join(dict.fromkeys(change[key] for key in wrong))
            raise ModelError(f"{name}: the checkpoint does not fit the run: expected {'; '.join(words)}; change {settings}")


def segmenter_sizes(state: State, name: str) -> SegmenterSizes:
    """Sizes of a published neck and head, from the shapes of three tensors and the number of layers."""
    state = _with_published_neck(state)
    needed_keys = (f"{NECK}linear_fuse.weight", f"{NECK}linears_modulelist.0.proj.weight", f"{HEAD}linear_pred.weight")
    missing = [key for key in needed_keys if key not in state or state[key].ndim < 2]
    if missing:
        raise ModelError(f"{name}: incomplete: {list_names(missing)} missing or of no such shape")
    fuse, adapter, classifier = (state[key].shape for key in needed_keys)
    layers = {key.split(".")[3] for key in state if key.startswith(f"{HEAD}transformer.resblocks.")}
    return SegmenterSizes(classifier[0] - 1, fuse[1] // max(1, fuse[0]), adapter[1], fuse[0], len(layers))


def published_segmenter(state: State, spec: SegmenterSpec | None, name: str) -> Segmenter:
    """The segmenter that holds a published neck and head (`decoder_fts_fuse.*` or `neck.*`, `decoder.*`), in evaluation mode.

    Its sizes come from the shapes. `spec` must agree with them, and gives heads and dropout besides; None: as published.
    ModelError for weights that are missing, unknown, of another shape or not finite.
    """
    state = _with_published_neck(state)
    sizes = segmenter_sizes(state, name)
    spec = spec or SegmenterSpec(width=sizes.width, layers=sizes.layers, heads=PUBLISHED_HEADS)
    with torch.device("meta"):  # nothing is drawn at random
        segmenter = Segmenter(sizes.blocks, sizes.token_width, sizes.classes, spec)
    names = {key: published_name(key) for key in segmenter.state_dict()}
    require_names(list(names.values()), list(state), name)
    for key, value in segmenter.state_dict().items():
        weights = state[names[key]]
        if weights.shape != value.shape:
            raise ModelError(f"{name}: {names[key]} must be {tuple(value.shape)}, got {tuple(weights.shape)}")
        if not torch.isfinite(weights).all():
            raise ModelError(f"{name}: {names[key]} has values that are no finite numbers; its training went wrong")
    segmenter.load_state_dict({key: state[names[key]].float().contiguous().clone() for key in names}, assign=True)
    return segmenter.eval()


def require_names(expected: list[str], present: list[str], name: str) -> None:
    """ModelError with the names that are missing and those that are unknown, if any."""
    missing, unknown = set(expected) - set(present), set(present) - set(expected)
    problems = [f"missing {list_names(missing)}"] if missing else []
    problems += [f"unknown {list_names(unknown)}"] if unknown else []
    if problems:
        raise ModelError(f"{name}: other names than a checkpoint of the published code has: {'; '.join(problems)}")


def clip_name(key: str) -> str:
    """visual.transformer.resblocks.8.attn.qkv.weight → the same block's attn.in_proj_weight; other names as they are."""
    match = CALIBRATED.match(key)
    if not match:
        return key
    return f"{match[1]}.in_proj_{match[4]}" if match[3] == "qkv" else f"{match[1]}.out_proj.{match[4]}"


def published_clip_name(key: str, blocks: int) -> str:
    """The reverse of `clip_name`, as the published code names the last blocks of `blocks`."""
    match = PLAIN.match(key)
    if not match or int(match[2]) < blocks - PUBLISHED_DEPTH:
        return key
    return f"{match[1]}.{'qkv' if match[3] == 'in_proj_' else 'proj'}.{match[4]}"


def list_names(names: Iterable[object]) -> str:
    """The first few of some names, and how many more there are."""
    listed = sorted(map(str, names))
    more = f" and {len(listed) - MAX_NAMES} more" if len(listed) > MAX_NAMES else ""
    return (", ".join(listed[:MAX_NAMES]) or "nothing") + more


def _with_published_neck(state: State) -> State:
    """`neck.*`, as the golden arrays have it, under the published name."""
    return {re.sub(r"^neck\.", NECK, key): value for key, value in state.items()}


def published_name(key: str) -> str:
    """neck.fuse.bias → decoder_fts_fuse.linear_fuse.bias"""
    for pattern, published in NECK_AND_HEAD:
        key = pattern.sub(published, key)
    return key
