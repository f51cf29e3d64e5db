"""WeCLIP and WeCLIP+: what differs from the presets' ExCEL, by variant and data set (peers.md 3, 4 and 5).

`reference` is the published code but for one thing: classes of a training image come from image-level labels, never from its
mask. `clean` is without the accidents that docs/methods.md lists.
"""

from typing import Any

__all__ = ["WECLIP", "WECLIP_PLUS"]

Edits = dict[str, Any]

# What all variants of both methods share on all data sets. Texts are class names alone.
_COMMON: Edits = {
    "describe": {"provider": "none"},
    "knowledge": {"mode": "none"},
    "cams": {"producer": "gradcam", "input": "longest_side", "calibration": {"probability": "inner_product"}},
    "refine": {
        "affinity": {"layers": 8, "dynamic_layers": 6, "scale": "mean", "threshold": 0.4},
        "par": {"image": "normalised"},
        # Of the segmentation alone; seeds have none.
        "crf": {"enabled": False, "gaussian_sigma": 3, "bilateral_sigma": 64, "bilateral_colour_sigma": 5},
    },
    "train": {"own_argmax_from": None, "crop_rule": "random", "order_seed": 1, "seed": 1},
    "dynamic": {"mirror": False},
    "predict": {"protocol": "longest_side", "flip": "all", "average_at": 1.0},
    "evaluate": {"ablation": False},  # it is about ExCEL's parts
    "shards": {"keep_attention": False},
}
_WECLIP: Edits = {
    "train": {"segmenter": {"blocks": "before_last"}, "learning_rate": 2e-3},
    "predict": {"scales": (1.0, 0.75)},
}
_PLUS: Edits = {
    "dino": {"model": "dinov2_vits14"},
    "cams": {"gradcam_skips": 1},
    "refine": {"affinity": {"boxes": False}},
    "train": {
        "segmenter": {"blocks": "last_but_one"},
        "learning_rate": 2e-4,
        "dice_weight": 1.0,
        "mutual_weight": 0.1,
        "dynamic_from": 0,
        "guided_from": 0,
    },
    "predict": {"scales": (1.0, 1.5)},
}
_WITHOUT_ACCIDENTS: Edits = {
    "cams": {"normalisation": "clip", "input": "whole_patches"},
    "refine": {"par": {"image": "photo"}},
    "train": {"padding": "ignored"},
    "predict": {"protocol": "whole_patches"},
}
_PLUS_WITHOUT_ACCIDENTS: Edits = {
    "cams": {"gradcam_skips": 0},
    "refine": {"affinity": {"boxes": True}},
    "train": {"own_labels_classes": "image"},
}
_COCO: Edits = {
    "refine": {"affinity": {"dynamic_layers": 10, "threshold": 0.7}},
    "train": {"iterations": 80_000, "warmup": 50},
}
_PHOTO_SIDE: Edits = {"cams": {"image_size": 512}, "predict": {"image_size": 512}}
# The demo's CLIP has 8 blocks, and its scenes 128 pixels.
_DEMO: Edits = {"refine": {"affinity": {"layers": 5, "dynamic_layers": 4}}}


def _together(*parts: Edits) -> Edits:
    """Nested edits in one; of two values for a field the later one counts."""
    merged: Edits = {}
    for part in parts:
        for key, value in part.items():
            merged[key] = _together(merged.get(key, {}), value) if isinstance(value, dict) else value
    return merged


def _both(reference: dict[str, Edits], clean: dict[str, Edits]) -> dict[str, dict[str, Edits]]:
    """Edits by variant and preset, of those of the reference, and of what `clean` changes in them."""
    return {"reference": reference, "clean": {name: _together(edits, clean[name]) for name, edits in reference.items()}}


# Published: static labels until the forward counter passes 15,000, which the validations within training move on: on VOC
# iteration 9,144 is the first with dynamic labels. `photos` and `demo` have VOC's schedule in proportion.
WECLIP = _both(
    {
        "voc": _together(_COMMON, _WECLIP, _PHOTO_SIDE, {"train": {"iterations": 30_000, "dynamic_from": 9_144}}),
        "coco": _together(_COMMON, _WECLIP, _PHOTO_SIDE, _COCO, {"train": {"dynamic_from": 40_000}}),
        "photos": _together(_COMMON, _WECLIP, _PHOTO_SIDE, {"train": {"iterations": 4_000, "dynamic_from": 1_219}}),
        "demo": _together(_COMMON, _WECLIP, _DEMO, {"train": {"iterations": 300, "dynamic_from": 91}}),
    },
    {
        "voc": _together(_WITHOUT_ACCIDENTS, {"train": {"dynamic_from": 15_000}}),
        "coco": _WITHOUT_ACCIDENTS,
        "photos": _together(_WITHOUT_ACCIDENTS, {"train": {"dynamic_from": 2_000}}),
        "demo": _together(_WITHOUT_ACCIDENTS, {"train": {"dynamic_from": 150}}),
    },
)
# Published: own labels after iteration 18,000, counted from 0; an untrained head guides seeds.
WECLIP_PLUS = _both(
    {
        "voc": _together(_COMMON, _PLUS, _PHOTO_SIDE, {"train": {"iterations": 30_000, "own_labels_from": 18_001}}),
        "coco": _together(
            *(_COMMON, _PLUS, _PHOTO_SIDE, _COCO),
            {
                "cams": {"gradcam_skips": 0},
                "refine": {"affinity": {"dynamic_layers": 8, "boxes": True}},
                "train": {"batch_size": 8, "own_labels_from": 40_001},
            },
        ),
        "photos": _together(_COMMON, _PLUS, _PHOTO_SIDE, {"train": {"iterations": 4_000, "own_labels_from": 2_401}}),
        "demo": _together(
            *(_COMMON, _PLUS, _DEMO),
            # Ten times the published rate: a hundredth of the iterations would not move the head.
            {"dino": {"model": "dino-tiny"}, "train": {"iterations": 300, "learning_rate": 2e-3, "own_labels_from": 181}},
        ),
    },
    {
        name: _together(_WITHOUT_ACCIDENTS, _PLUS_WITHOUT_ACCIDENTS, {"train": {"guided_from": first}})
        for name, first in {"voc": 3_000, "coco": 8_000, "photos": 400, "demo": 30}.items()
    },
)
