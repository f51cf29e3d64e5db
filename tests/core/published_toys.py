"""Checkpoints in the published format, written from a CLIP and a segmenter by names spelt out here."""

import json
from pathlib import Path

import torch

from excel_core.config import SegmenterSpec
from excel_core.models.clip import FrozenClip
from excel_core.models.segmenter import Segmenter

NAMES = Path(__file__).parent.parent / "data" / "published_checkpoint_names.json"
ENDS = {
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
}


def published_clip(seed=0, quick_gelu=True) -> FrozenClip:
    """A seeded CLIP of the sizes of `published_checkpoint_names.json`: 12 blocks, width 128, 2 heads, patch 16."""
    from open_clip.model import CLIP

    cam_model = {"image_size": 224, "layers": 12, "width": 128, "head_width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 512, "width": 64, "heads": 1, "layers": 2}
    torch.manual_seed(seed)
    return FrozenClip(CLIP(64, cam_model, text, quick_gelu=quick_gelu), None, f"seed {seed}")


def seeded_segmenter(clip, classes=20, width=64, layers=3, seed=1) -> Segmenter:
    """An untrained segmenter of those sizes over `clip`."""
    torch.manual_seed(seed)
    return Segmenter(len(clip.blocks), clip.width, classes, SegmenterSpec(width=width, layers=layers)).eval()


def published_state(clip, segmenter, prefix="module.") -> dict[str, torch.Tensor]:
    """The state dict as the published training saves it."""
    state = {}
    first = len(clip.blocks) - 5
    for key, value in clip.model.state_dict().items():
        words = key.split(".")
        if key.startswith("visual.transformer.resblocks.") and int(words[3]) >= first:
            end = ".".join(words[4:])
            key = ".".join(words[:4]) + "." + ENDS.get(end, end)
            if int(words[3]) == first and end in ENDS:
                state[f"encoder.visual.{ENDS[end]}"] = value
        state[f"encoder.{key}"] = value
    state["encoder.visual.positional_embedding"] = torch.randn(401, clip.width)
    for block, adapter in enumerate(segmenter.neck.adapters):
        for layer, name in ((adapter[0], "proj"), (adapter[2], "proj_2")):
            state[f"decoder_fts_fuse.linears_modulelist.{block}.{name}.weight"] = layer.weight
            state[f"decoder_fts_fuse.linears_modulelist.{block}.{name}.bias"] = layer.bias
    for name, layer in (("decoder_fts_fuse.linear_fuse", segmenter.neck.fuse), ("decoder.linear_pred", segmenter.classifier)):
        state |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    state |= {f"decoder.transformer.resblocks.{key}": value for key, value in segmenter.head.state_dict().items()}
    return {prefix + key: value.detach().clone() for key, value in state.items()}


def published_names() -> dict[str, tuple[int, ...]]:
    """Every key and shape of a published checkpoint of `published_clip` with 20 classes and width 64."""
    return {key: tuple(shape) for key, shape in json.loads(NAMES.read_text()).items()}
