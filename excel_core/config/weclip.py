"""WeCLIP and WeCLIP+: what differs from the presets' ExCEL, by variant and data set (peers.md 3, 4 and 5).

`reference` is the published code but for one thing: classes of a training image come from image-level labels, never from its
mask. `clean` is without the accidents that docs/methods.md lists.
"""

from typing import Any

__all__ = ["WECLIP", "WECLIP_PLUS"]

Edits = dict[str, Any]

# What all variants of both methods share on all data sets.
_COMMON: Edits = {
    "knowledge": {"mode": "none"},
    "cams": {
        "producer": "gradcam",
        "calibration": {"attention": "qk", "layers": "true", "probability": "inner_product"},
    },
    "refine": {
        "affinity": {"layers": 8, "dynamic_layers": 6, "scale": "mean", "threshold": 0.4},
        "par": {"image": "normalised"},
        # Of the segmentation alone; seeds have none.
        "crf": {"enabled": False, "gaussian_sigma": 3, "bilateral_sigma": 64, "bilateral_colour_sigma": 5},
    },
    "train": {"own_argmax_from": None, "crop_rule": "random", "order_seed": 1, "seed": 1},
    "dynamic": {"mirror": False},
    "predict": {"protocol": "longest_side", "flip": "all", "average_at": 1.0},
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
    "cams": {"normalisation": "clip"},
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
    "shards": {"keep_attention": False},
}
_PHOTO_SIDE: Edits = {"cams": {"image_size": 512}, "predict": {"image_size": 512}}
# The demo's CLIP has 8 blocks, and its scenes 128 pixels.
_DEMO: Edits = {"refine": {"affinity": {"layers": 5, "dynamic_layers": 4}}}

# Published: static labels until the forward counter passes 15,000, which the validations within training move on: on VOC
# iteration 9,144 is the first with dynamic labels.
WECLIP: dict[str, dict[str, list[Edits]]] = {
    "reference": {
        "voc": [_COMMON, _WECLIP, _PHOTO_SIDE, {"train": {"iterations": 30_000, "dynamic_from": 9_144}}],
        "coco": [_COMMON, _WECLIP, _PHOTO_SIDE, _COCO, {"train": {"dynamic_from": 40_000}}],
        "photos": [_COMMON, _WECLIP, _PHOTO_SIDE, {"train": {"iterations": 4_000, "dynamic_from": 1_219}}],
        "demo": [_COMMON, _WECLIP, _DEMO, {"train": {"iterations": 300, "dynamic_from": 91}}],
    },
    "clean": {
        "voc": [_WITHOUT_ACCIDENTS, {"train": {"dynamic_from": 15_000}}],
        "coco": [_WITHOUT_ACCIDENTS],
        "photos": [_WITHOUT_ACCIDENTS, {"train": {"dynamic_from": 2_000}}],
        "demo": [_WITHOUT_ACCIDENTS, {"train": {"dynamic_from": 150}}],
    },
}
# Published: own labels after iteration 18,000, counted from 0; seeds are multiplied by an untrained head's probabilities.
WECLIP_PLUS: dict[str, dict[str, list[Edits]]] = {
    "reference": {
        "voc": [_COMMON, _PLUS, _PHOTO_SIDE, {"train": {"iterations": 30_000, "own_labels_from": 18_001}}],
        "coco": [
            *(_COMMON, _PLUS, _PHOTO_SIDE, _COCO),
            {
                "cams": {"gradcam_skips": 0},
                "refine": {"affinity": {"dynamic_layers": 8, "boxes": True}},
                "train": {"batch_size": 8, "own_labels_from": 40_001},
            },
        ],
        "photos": [_COMMON, _PLUS, _PHOTO_SIDE, {"train": {"iterations": 4_000, "own_labels_from": 2_401}}],
        "demo": [
            *(_COMMON, _PLUS, _DEMO),
            {"dino": {"model": "dino-tiny"}, "train": {"iterations": 300, "own_labels_from": 181}},
        ],
    },
    "clean": {
        "voc": [_WITHOUT_ACCIDENTS, _PLUS_WITHOUT_ACCIDENTS, {"train": {"guided_from": 3_000}}],
        "coco": [_WITHOUT_ACCIDENTS, _PLUS_WITHOUT_ACCIDENTS, {"train": {"guided_from": 8_000}}],
        "photos": [_WITHOUT_ACCIDENTS, _PLUS_WITHOUT_ACCIDENTS, {"train": {"guided_from": 400}}],
        "demo": [_WITHOUT_ACCIDENTS, _PLUS_WITHOUT_ACCIDENTS, {"train": {"guided_from": 30}}],
    },
}
