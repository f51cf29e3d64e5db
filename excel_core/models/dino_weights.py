"""DINOv2 encoders by name, and their weights from a file. Nothing is downloaded and no code is unpickled.

A name is `dino-tiny` (the picture-book world's, shipped), a published one such as `dinov2_vits14`, whose file lies where
torch.hub or timm keeps it, or NAME:FILE with a file of one's own (.pth, .pt or .safetensors). Names of tensors may be the
published ones or timm's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.errors import ModelError
from excel_core.files import first_sentence, is_dense_tensor, load_tensors
from excel_core.models.clip_names import BUILT_IN_FOLDER
from excel_core.models.dino import FrozenDino

__all__ = ["DINO_SIZES", "TINY_DINO", "DinoSizes", "dino_file", "dino_from_state", "dino_sizes", "load_dino"]

TINY_DINO = "dino-tiny"
TINY_DINO_FILE = BUILT_IN_FOLDER / "tiny_dino.safetensors"
NORM_EPSILON = 1e-6
MAX_NAMED_DIFFERENCES = 3  # in a message
SUFFIXES = (".pth", ".pt", ".safetensors")
State = dict[str, Tensor]


@dataclass(frozen=True)
class DinoSizes:
    """`width` D of its features, `heads` of a block, `patch`: side of a patch in pixels; `timm`: timm's name of the model, ""
    where it has none."""

    width: int
    heads: int
    patch: int
    timm: str = ""


DINO_SIZES = {
    TINY_DINO: DinoSizes(96, 3, 8),
    "dinov2_vits14": DinoSizes(384, 6, 14, "vit_small_patch14_dinov2.lvd142m"),
    "dinov2_vitb14": DinoSizes(768, 12, 14, "vit_base_patch14_dinov2.lvd142m"),
    "dinov2_vitl14": DinoSizes(1024, 16, 14, "vit_large_patch14_dinov2.lvd142m"),
    "dinov2_vits14_reg": DinoSizes(384, 6, 14, "vit_small_patch14_reg4_dinov2.lvd142m"),
    "dinov2_vitb14_reg": DinoSizes(768, 12, 14, "vit_base_patch14_reg4_dinov2.lvd142m"),
    "dinov2_vitl14_reg": DinoSizes(1024, 16, 14, "vit_large_patch14_reg4_dinov2.lvd142m"),
}


def dino_sizes(name: str) -> DinoSizes:
    """Sizes of the encoder `name`; ModelError for an unknown one, with the valid ones."""
    model = name.partition(":")[0]
    if model not in DINO_SIZES:
        raise ModelError(f"unknown DINO {model!r}; valid: {', '.join(DINO_SIZES)}, each also as NAME:FILE")
    return DINO_SIZES[model]


def dino_file(name: str) -> Path:
    """The file of `name`'s weights; ModelError where there is none, with where to put it."""
    model, separator, given = name.partition(":")
    sizes = dino_sizes(name)
    if separator:
        file = Path(given)
        if not file.is_file() or file.suffix not in SUFFIXES:
            raise ModelError(f"DINO weights {given!r} do not exist; give a file that ends with {', '.join(SUFFIXES)}")
        return file
    if model == TINY_DINO:
        return TINY_DINO_FILE
    published = Path(torch.hub.get_dir()) / "checkpoints" / _published_file(model)
    file = published if published.is_file() else _timm_file(sizes.timm) or published
    if not file.is_file():
        raise ModelError(
            f"the weights of {model} are not on this machine; fetch "
            f"https://dl.fbaipublicfiles.com/dinov2/{_published_folder(model)}/{_published_file(model)} to {published}, "
            f"or give any other place: {model}:/path/to/the/file"
        )
    return file


def _published_folder(model: str) -> str:
    return model.removesuffix("_reg")


def _published_file(model: str) -> str:
    return f"{_published_folder(model)}_{'reg4_' if model.endswith('_reg') else ''}pretrain.pth"


def _timm_file(timm_name: str) -> Path | None:
    """Where timm has downloaded the model before, if it has."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(f"timm/{timm_name}", "model.safetensors")
    return Path(file) if isinstance(file, str) else None


def load_dino(name: str, device: str = "cpu") -> FrozenDino:
    """The encoder `name` in float32 on `device`; ModelError, with what to do, where it cannot be loaded."""
    file = dino_file(name)
    dino = dino_from_state(_read_state(file), dino_sizes(name).heads, name)
    expected, actual = dino_sizes(name), DinoSizes(dino.width, dino_sizes(name).heads, dino.patch, dino_sizes(name).timm)
    if actual != expected:
        raise ModelError(
            f"{name}: expected width {expected.width} and patches of {expected.patch}, got {actual.width} and {actual.patch}; "
            "take the file of the model that is named"
        )
    return dino.to(device)


def dino_from_state(state: Mapping[str, Tensor], heads: int, name: str = "DINO state dict") -> FrozenDino:
    """A DINOv2 whose other sizes are read from a state dict under the published names or timm's; `heads` no shape tells.
    ModelError for weights that are missing, unknown or of another shape."""
    from timm.models.vision_transformer import VisionTransformer

    state = _under_timms_names(state)
    try:
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        positions = state.pop("pos_embed")[0]
        hidden, depth = state["blocks.0.mlp.fc1.weight"].shape[0], len({key.split(".")[1] for key in state if "ls1" in key})
    except (KeyError, ValueError, IndexError):
        raise ModelError(f"{name}: no DINOv2 of plain blocks with LayerScale; take dinov2_vits14, vitb14 or vitl14") from None
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    if math.isqrt(len(positions)) ** 2 == len(positions):  # timm has added the class token's position to the token
        positions = torch.cat([torch.zeros_like(positions[:1]), positions])
    if (math.isqrt(len(positions) - 1) ** 2 != len(positions) - 1) or width % heads:
        raise ModelError(f"{name}: {len(positions)} positions of width {width} are no square grid of {heads} heads")
    with torch.device("meta"):  # nothing is drawn at random
        model: Any = VisionTransformer(
            img_size=patch,
            patch_size=patch,
            num_classes=0,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=hidden / width,
            init_values=1.0,
            reg_tokens=registers,
            pos_embed="none",
            norm_layer=partial(torch.nn.LayerNorm, eps=NORM_EPSILON),
        )
    _require_fitting(state, {key: tuple(value.shape) for key, value in model.state_dict().items()}, name)
    model.load_state_dict({key: value.float().contiguous() for key, value in state.items()}, assign=True)
    return FrozenDino(model, positions.float(), name)


def _under_timms_names(state: Mapping[str, Tensor]) -> State:
    """The published name of the registers → timm's; the mask token, which training alone uses, is left out."""
    renamed = {"register_tokens": "reg_token"}
    return {renamed.get(key, key): value for key, value in state.items() if key != "mask_token"}


def _require_fitting(state: State, expected: dict[str, tuple[int, ...]], name: str) -> None:
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    different = [key for key in sorted(expected.keys() | shapes.keys()) if expected.get(key) != shapes.get(key)]
    if different:
        named = "; ".join(
            f"{key}: file has {shapes.get(key, 'nothing')}, the model {expected.get(key, 'nothing')}"
            for key in different[:MAX_NAMED_DIFFERENCES]
        )
        raise ModelError(f"{name}: the weights are of another architecture ({len(different)} differences: {named})")


def _read_state(file: Path) -> State:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        state = load_tensors(file)
    except Exception as error:  # torch, zip and safetensors raise many kinds; all mean an unreadable file
        raise ModelError(
            f"{file}: not readable as weights ({first_sentence(error)}); give a .pth or .safetensors file"
        ) from None
    if not isinstance(state, dict) or not all(is_dense_tensor(value) for value in state.values()):
        raise ModelError(f"{file}: holds no state dict of tensors; give the published file of a DINOv2")
    return state
