"""Load a DINOv2 by its name (dino_names.py), or from tensors under the published names or timm's. No code is unpickled."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from excel_core.errors import ModelError
from excel_core.models.dino import FrozenDino
from excel_core.models.dino_names import WANTED_DINO, dino_file, dino_sizes
from excel_core.models.weight_files import load_state

__all__ = ["dino_from_state", "load_dino"]

NORM_EPSILON = 1e-6
MAX_NAMED_DIFFERENCES = 3  # in a message
State = dict[str, Tensor]


def load_dino(name: str, device: str = "cpu") -> FrozenDino:
    """The encoder `name` in float32 on `device`; ModelError, with what to do, where it cannot be loaded."""
    dino = dino_from_state(load_state(dino_file(name), WANTED_DINO), dino_sizes(name).heads, name)
    expected = dino_sizes(name)
    if (dino.width, dino.patch, dino.has_registers) != (expected.width, expected.patch, expected.registers):
        raise ModelError(
            f"{name}: expected width {expected.width} and patches of {expected.patch}, {_registers(expected.registers)}, got "
            f"{dino.width} and {dino.patch}, {_registers(dino.has_registers)}; take the file of the model that is named"
        )
    return dino.to(device)


def _registers(present: bool) -> str:
    return "with registers" if present else "without registers"


@torch.inference_mode(False)
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
