"""What earlier versions of excel meant, where their runs and exports lack a field that came later or hold a value that went."""

from typing import Any

__all__ = ["input_as_then", "run_as_then"]

Object = dict[str, Any]


def input_as_then(view: Object) -> Object:
    """`view`, fields of CamSpec: without the field, photos were smoothed as they shrank (and rounded to 8 bits, which moves
    a hundredth as many labels)."""
    return {"antialias": True} | view


def run_as_then(spec: Object, device: str) -> Object:
    """`spec`, a RunSpec as plain data, as far as finished runs are read for it: the segmenter's input, the splits that have
    pseudo labels, and `amp`, which was half precision where `device` was a GPU."""
    data, train = spec.get("dataset", {}), spec.get("train", {})
    found = {
        "cams": input_as_then(spec.get("cams", {})),
        "dataset": {"seed_splits": [data.get("train_split", "train")]} | data,
    }
    if train.get("precision") == "amp":
        found["train"] = train | {"precision": "bf16" if device == "cuda" else "fp32"}
    return spec | found
