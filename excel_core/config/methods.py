"""The methods: what each one changes of a preset, for every data set and for single ones. docs/methods.md has a page on each.

A method is named NAME:VARIANT. `reference` is what the published code computes, accidents included; `clean` is that without
its accidents; ExCEL also has `paper`, the equations as printed.
"""

from dataclasses import dataclass, field
from typing import Any

from excel_core.config.weclip import WECLIP, WECLIP_PLUS
from excel_core.errors import SettingError, shown

__all__ = ["METHODS", "Edits", "Method", "parse_method", "short_method"]

Edits = dict[str, Any]  # {stage: {field: value}}, nested as the specs are
FIRST_NAME, FIRST_VARIANT = "excel", "reference"  # what a name without a variant, and a variant without a name, stand for


@dataclass(frozen=True)
class Method:
    """`edits` of every preset, then those `of_preset`; what they do not name stays as the preset has it."""

    edits: Edits = field(default_factory=dict)
    of_preset: dict[str, Edits] = field(default_factory=dict)

    def all_edits(self, preset: str) -> list[Edits]:
        """What the method changes of a preset, in order."""
        return [self.edits, self.of_preset.get(preset, {})]


# A method that trains nothing ends with the scores of its seeds, and reads no descriptions of classes.
SEEDS_ALONE: Edits = {"train": {"enabled": False}, "evaluate": {"kinds": ("static",), "ablation": False}}
NAMES_ALONE: Edits = {"describe": {"provider": "none"}, "knowledge": {"mode": "none"}}
# The cleaned-up CAMs of patches against texts: each patch a vector of unit length, each photo by itself.
CLEAN_CAMS: Edits = {"antialias": True, "normalisation": "clip", "features": "over_channels"}

CLIP_ES: Edits = SEEDS_ALONE | NAMES_ALONE | {
    "cams": {"producer": "gradcam", "input": "native", "normalisation": "clip"},
    "refine": {
        "affinity": {"layers": 8, "scale": "mean", "threshold": 0.4},
        "par": {"enabled": False},
        "crf": {
            "of": "affinity",
            "normalised": False,
            "least_probability": 0.0,
            "image": "wrapped_bgr",
            "confidence": 0.95,
        },
        "precision": "fp16",
    },
    "shards": {"keep_attention": False},  # of 768 patches it takes 1.2 MB an image
}  # fmt: skip

COCO_BOXES: dict[str, Edits] = {"coco": {"refine": {"affinity": {"threshold": 0.7}}}}

# Each variant holds only what differs from the presets, which are ExCEL's as its published code computes it.
METHODS: dict[str, dict[str, Method]] = {
    "excel": {
        "reference": Method(),
        "paper": Method(
            {
                "knowledge": {"normalise": False},
                "cams": {
                    "normalisation": "clip",
                    "features": "over_channels",
                    "surgery": False,
                    "minmax": "patches",
                    "calibration": {"heads": "each", "layers": "true", "relation_mean": "image", "probability": "cosine"},
                },
                "train": {
                    "segmenter": {"dropout": 0.0},
                    "learning_rate": 1e-4,
                    "dynamic_from": 0,
                    "pair_targets": "static",
                    "own_argmax_from": None,
                    "segmentation_loss": "mean",
                    "diversity_loss": "printed",
                    "radius": None,
                },
            }
        ),
        "clean": Method(
            {
                "cams": CLEAN_CAMS | {"calibration": {"layers": "true", "relation_mean": "image"}},
                "refine": {"affinity": {"scale": "mean"}, "par": {"image": "photo"}},
                "train": {"padding": "ignored"},
                "predict": {"flip": "all", "sides": "whole_patches"},
            }
        ),
    },
    # As ExCEL's Table 5 compares it: values alone in the last block, all else ExCEL's. `clean` is MaskCLIP's own idea: class
    # names alone, and the cosine of each patch with them.
    "maskclip": {
        "reference": Method(SEEDS_ALONE | {"cams": {"calibration": {"attention": "v", "depth": 1}}}),
        "clean": Method(
            SEEDS_ALONE
            | NAMES_ALONE
            | {
                "cams": CLEAN_CAMS | {"surgery": False, "minmax": "patches", "calibration": {"attention": "v", "depth": 1}},
                "refine": {"affinity": {"scale": "mean"}, "par": {"image": "photo"}},
            }
        ),
    },
    "clip_es": {
        "reference": Method(CLIP_ES, COCO_BOXES),
        "clean": Method(
            CLIP_ES
            | {
                "refine": CLIP_ES["refine"]
                | {"crf": CLIP_ES["refine"]["crf"] | {"normalised": True, "image": "photo"}, "precision": "fp32"}
            },
            COCO_BOXES,
        ),
    },
    "weclip": {variant: Method(of_preset=edits) for variant, edits in WECLIP.items()},
    "weclip_plus": {variant: Method(of_preset=edits) for variant, edits in WECLIP_PLUS.items()},
}


def parse_method(text: str) -> tuple[str, str]:
    """`clip_es` → (clip_es, reference); `clean` → (excel, clean). SettingError for an unknown method, with the valid ones."""
    name, _, variant = text.partition(":")
    if text in METHODS[FIRST_NAME]:
        name, variant = FIRST_NAME, text
    variant = variant or FIRST_VARIANT
    if text.endswith(":") or name not in METHODS or variant not in METHODS[name]:
        valid = ", ".join(f"{name}[:{'|'.join(variants)}]" for name, variants in METHODS.items())
        raise SettingError(
            f"unknown method {shown(text)}; valid methods: {valid}; {', '.join(METHODS[FIRST_NAME])} are {FIRST_NAME}'s"
        )
    return name, variant


def short_method(text: str) -> str:
    """A method's shortest NAME or NAME:VARIANT: `clip_es:reference` → clip_es, `clean` → excel:clean."""
    name, variant = parse_method(text)
    return name if variant == FIRST_VARIANT else f"{name}:{variant}"
