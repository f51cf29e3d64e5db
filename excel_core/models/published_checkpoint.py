"""Segmenters that the published code trained: how a checkpoint is read and held against a CLIP and a run (method 7).

    [module.]encoder.*            its frozen CLIP, which is compared with the CLIP in use and not taken
        visual.transformer.resblocks.N.attn.qkv, .proj    in_proj and out_proj, in the calibrated blocks
        visual.positional_embedding                       not used: resized to 20 x 20 already; the CLIP's own counts
        visual.attn.*                                     not used: a second name of one calibrated block's attention
    [module.]decoder_fts_fuse.*   the neck
    [module.]decoder.*            the head and its classifier

Files are read by weight_files.py, which takes `module.` from the names.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from excel_core.config import CamSpec, SegmenterSpec
from excel_core.errors import ModelError
from excel_core.models.clip import FrozenClip
from excel_core.models.published_names import (
    CALIBRATED,
    HEAD,
    NECK,
    PUBLISHED_DEPTH,
    PUBLISHED_HEADS,
    SegmenterSizes,
    State,
    clip_name,
    list_names,
    published_clip_name,
    published_segmenter,
    require_names,
    segmenter_sizes,
)
from excel_core.models.segmenter import Segmenter
from excel_core.models.weight_files import file_kind, load_state

__all__ = ["PublishedCheckpoint", "is_published", "read_published"]

ENCODER = "encoder."
WANTED = "give a checkpoint of the published code (.pth, .pt or .safetensors)"

# Weights that were stored in half precision and read again differ by half a unit in the last of its 11 bits, 2^-11 of
# their size, and by 2^-25 where they are subnormal. Twice that passes. Another CLIP, or one that was trained on, differs by
# far more in some layer.
RELATIVE, ABSOLUTE = 2.0**-10, 2.0**-24

UNUSED = re.compile(r"^(visual\.attn\..*|visual\.positional_embedding|logit_scale)$")


@dataclass(frozen=True)
class PublishedCheckpoint:
    """The tensors of a checkpoint: `encoder` by the CLIP's own names, `segmenter` by the published ones. `calibrated`: the
    number of blocks whose attention has the names of calibrated blocks."""

    name: str
    encoder: State
    segmenter: State
    calibrated: int

    @property
    def sizes(self) -> SegmenterSizes:
        """The segmenter's sizes."""
        return segmenter_sizes(self.segmenter, self.name)

    def fit(self, clip: FrozenClip, classes: int, spec: SegmenterSpec) -> Segmenter:
        """The segmenter on the CPU, in evaluation mode; ModelError where it was made for other classes, another `spec` or
        another CLIP than `clip`."""
        expected = SegmenterSizes(classes, len(clip.blocks), clip.width, spec.width, spec.layers)
        self.sizes.require(expected, self.name)
        if spec.heads != PUBLISHED_HEADS:
            raise ModelError(f"{self.name}: the published head has {PUBLISHED_HEADS} heads, train.segmenter.heads={spec.heads}")
        segmenter = published_segmenter(self.segmenter, spec, self.name)
        _check_encoder(self, clip)
        return segmenter

    def differences(self, clip: FrozenClip, spec: CamSpec) -> list[str]:
        """Settings that decide the neck's input and differ from the published code's, a phrase for each."""
        activation = type(clip.blocks[0].mlp.gelu).__name__
        settings = {
            "cams.normalisation": (spec.normalisation, "imagenet"),
            "cams.calibration.attention": (spec.calibration.attention, "svc"),
            "cams.calibration.heads": (spec.calibration.heads, "sum"),
            "cams.calibration.layers": (spec.calibration.layers, "published"),
            "cams.calibration.depth": (spec.calibration.depth, self.calibrated or PUBLISHED_DEPTH),
            "the CLIP's activation": (activation, "QuickGELU"),
        }
        return [f"{name} is {ours}, not {published}" for name, (ours, published) in settings.items() if ours != published]


def is_published(path: Path) -> bool:
    """Whether to read a file as a published checkpoint: a torch file, or safetensors with a published neck, by its content. Any
    .pth or .pt is one, so that reading it reports what is wrong with it."""
    from safetensors import safe_open

    kind = file_kind(path) if path.is_file() else ""
    if kind != "safetensors":
        return kind == "torch" or path.suffix in (".pth", ".pt")
    try:
        with safe_open(path, framework="pt") as file:
            return any(NECK in key for key in file.keys())  # noqa: SIM118  it is no dict
    except Exception:  # a damaged file, of whichever kind
        return False


def read_published(path: Path) -> PublishedCheckpoint:
    """Read a checkpoint onto the CPU; ModelError, with what is missing, for any other file."""
    state = load_state(path, WANTED)
    segmenter = {key: value for key, value in state.items() if key.startswith((NECK, HEAD))}
    if not any(key.startswith(NECK) for key in segmenter):
        raise ModelError(f"{path}: no segmenter of the published code: it has no {NECK}* but {list_names(state)}")
    encoder = {key.removeprefix(ENCODER): value for key, value in state.items() if key.startswith(ENCODER)}
    unknown = [key for key in state if not key.startswith((NECK, HEAD, ENCODER))]
    if unknown or not encoder:
        wrong = f"unknown {list_names(unknown)}" if unknown else f"no {ENCODER}*"
        raise ModelError(f"{path}: no whole checkpoint of the published code: {wrong}")
    renamed = {clip_name(key): value for key, value in encoder.items()}
    if len(renamed) < len(encoder):
        raise ModelError(f"{path}: a block of the encoder has both attn.qkv and attn.in_proj, or attn.proj and attn.out_proj")
    calibrated = {match[2] for key in encoder if (match := CALIBRATED.match(key))}
    return PublishedCheckpoint(str(path), renamed, segmenter, len(calibrated))


def _check_encoder(checkpoint: PublishedCheckpoint, clip: FrozenClip) -> None:
    """ModelError with the first layer that differs from the CLIP's, the vision tower first. Text towers are compared where both
    have one."""
    theirs = {key: value for key, value in checkpoint.encoder.items() if not UNUSED.match(key)}
    ours = {key: value for key, value in clip.model.state_dict().items() if not UNUSED.match(key)}
    if not (_has_texts(theirs) and _has_texts(ours)):
        theirs, ours = ({k: v for k, v in state.items() if k.startswith("visual.")} for state in (theirs, ours))
    blocks = len(clip.blocks)
    expected, present = ([ENCODER + published_clip_name(key, blocks) for key in state] for state in (ours, theirs))
    require_names(expected, present, checkpoint.name)
    for key, value in sorted(ours.items(), key=lambda item: not item[0].startswith("visual.")):
        difference = _difference(theirs[key], value.cpu())
        if difference:
            raise ModelError(
                f"{checkpoint.name}: trained with another CLIP than {clip.name}: {ENCODER}{published_clip_name(key, blocks)} "
                f"{difference}; pass the CLIP it was trained with by --clip"
            )


def _difference(theirs: Tensor, ours: Tensor) -> str:
    """In words how two weights differ by more than rounding; "" where they do not."""
    if theirs.shape != ours.shape:
        return f"is {tuple(theirs.shape)}, the CLIP's {tuple(ours.shape)}"
    difference = (theirs.float() - ours.float()).abs()
    if (difference <= RELATIVE * ours.float().abs() + ABSOLUTE).all():
        return ""
    return f"differs by up to {difference.max():.2g}"


def _has_texts(state: State) -> bool:
    return any(not key.startswith("visual.") for key in state)
