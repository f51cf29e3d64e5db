"""The frozen CLIP and its CAMs."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from excel_core.config.base import Positive, Spec

__all__ = ["CalibrationSpec", "CamSpec", "ClipSpec"]


class ClipSpec(Spec):
    """The frozen CLIP that everything looks through."""

    model: str = Field("ViT-B-16:openai", description="excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE")


class CalibrationSpec(Spec):
    """Static and learnable visual calibration (method 2 and 5, eqs. 5, 6, 8-10)."""

    attention: Literal["svc", "v", "qk"] = Field(
        "svc",
        description="svc: intra-correlation; v: value only (identity); qk: the plain last tokens. With v and qk the learnt "
        "relation (LVC) reaches CAMs by the affinity alone",
    )
    depth: Positive = Field(5, description="blocks, counted from the last, that are calibrated")
    heads: Literal["sum", "each", "whole"] = Field(
        "sum", description="one map summed over heads; each head its own; or one of the whole width, without heads (eq. 5)"
    )
    layers: Literal["published", "true"] = Field(
        "published", description="block outputs with the published aliasing accident, or the true ones"
    )
    relation_mean: Literal["batch", "image"] = Field(
        "batch", description="over what mean(cos) of eq. 8 is taken: all images seen together, or each"
    )
    probability: Literal["relation", "cosine"] = Field(
        "relation", description="R̂ is the sigmoid of the relation 3 (cos - mean), or of the cosine alone (eq. 11)"
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        """`layers=true` in YAML is a boolean; the word is meant."""
        return "true" if value is True else value


class CamSpec(Spec):
    """Patch-text class activation maps (method 3, eq. 1)."""

    image_size: Annotated[int, Field(ge=32, le=2048)] = Field(
        320, description="side S the image is resized to, aspect not kept"
    )
    antialias: bool = Field(False, description="smooth the photo as it is shrunk to S; the published code does not")
    normalisation: Literal["imagenet", "clip"] = Field("imagenet", description="pixel mean and std")
    features: Literal["over_tokens", "over_channels"] = Field(
        "over_tokens", description="L2 normalisation of P: over tokens for each channel, or over channels"
    )
    surgery: bool = Field(True, description="feature surgery with class weights and background prompts")
    minmax: Literal["all_tokens", "patches"] = Field("all_tokens", description="tokens the min-max looks at")
    calibration: CalibrationSpec = CalibrationSpec()
    batch_size: Positive = Field(8, description="images a forward pass")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the tower's products (autocast), but in training, which has its own"
    )
