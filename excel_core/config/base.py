"""The base of all specs, and how specs that earlier versions of excel wrote are read."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Positive", "Seed", "Spec", "Unit", "upgrade_cam_fields", "upgrade_predict_fields", "upgrade_run_fields"]

Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what NumPy, scikit-learn and PyTorch all take
Fields = dict[str, Any]
MAX_TEXT = 4096  # characters of a text field: names and paths


class Spec(BaseModel):
    """Base of all specs: immutable; refuses unknown fields, infinity and NaN, and texts that no setting needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_max_length=MAX_TEXT)


def upgrade_cam_fields(fields: Fields) -> Fields:
    """Fields of a CamSpec as plain data. Versions without `antialias` smoothed photos as they shrank (and rounded to 8 bits,
    which moves a hundredth as many labels)."""
    return {"antialias": True} | fields


def upgrade_predict_fields(fields: Fields) -> Fields:
    """Fields of a PredictSpec as plain data. Versions without `sides` rounded those of every scale to whole patches."""
    return {"sides": "whole_patches"} | fields


def upgrade_run_fields(fields: Fields, device: str) -> Fields:
    """Fields of a RunSpec as plain data, as far as finished runs are read for them: the segmenter's input, its scales, the
    splits that have pseudo labels, the method, which was ExCEL without saying so, and `amp`, half precision where `device` was
    a GPU."""
    method = fields.get("method", "reference")
    dataset, train = fields.get("dataset", {}), fields.get("train", {})
    upgraded: Fields = {
        "method": method if ":" in method else f"excel:{method}",
        "cams": upgrade_cam_fields(fields.get("cams", {})),
        "predict": upgrade_predict_fields(fields.get("predict", {})),
        "dataset": {"seed_splits": [dataset.get("train_split", "train")]} | dataset,
    }
    if train.get("precision") == "amp":
        upgraded["train"] = train | {"precision": "bf16" if device == "cuda" else "fp32"}
    return fields | upgraded
