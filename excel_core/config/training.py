"""The segmenter and its training."""

from typing import Annotated, Literal

from pydantic import Field

from excel_core.config.base import Positive, Seed, Spec, Unit

__all__ = ["SegmenterSpec", "TrainSpec"]


class SegmenterSpec(Spec):
    """Neck (adapter) and transformer head (method 5)."""

    width: Positive = Field(256, description="channels of neck and head")
    layers: Positive = Field(3, description="transformer layers of the head")
    heads: Positive = Field(8, description="attention heads of a layer; they divide the width")
    dropout: Unit = Field(0.1, description="Dropout2d after the neck's fusing convolution")


class TrainSpec(Spec):
    """Training of neck and head with LVC (method 5)."""

    segmenter: SegmenterSpec = SegmenterSpec()
    iterations: Positive = Field(30000, description="batches in all")
    batch_size: Positive = Field(4, description="crops a batch")
    crop: Annotated[int, Field(ge=32)] = Field(320, description="side of a crop, pixels")
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (0.5, 2.0), description="least and greatest random rescaling before the crop"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="1e-4 as printed, times 10 as published")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="of AdamW")
    betas: tuple[Unit, Unit] = Field((0.9, 0.999), description="of AdamW")
    warmup: Annotated[int, Field(ge=0)] = Field(50, description="iterations of linear warm-up from 1e-6 x")
    power: Annotated[float, Field(gt=0)] = Field(1.0, description="of the polynomial decay (1 - t/T)")
    dynamic_from: Annotated[int, Field(ge=0)] = Field(14000, description="dynamic refined labels from here on")
    own_argmax_from: Annotated[int, Field(ge=0)] | None = Field(
        24000, description="affinity target is the head's own argmax from here on; None: never"
    )
    diversity_weight: Annotated[float, Field(ge=0)] = Field(0.1, description="of the diversity loss in the sum")
    radius: Positive = Field(8, description="Chebyshev radius of affinity pairs on the patch grid")
    padding: Literal["labelled", "ignored"] = Field(
        "labelled", description="padded crop area: labelled as published, or ignored (255)"
    )
    checkpoint_every: Positive = Field(1000, description="iterations between checkpoints")
    seed: Seed = Field(0, description="of weights, batches and crops")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="processes that decode and crop; None: up to 4 beside a GPU, none beside a CPU, which they would slow"
    )
    precision: Literal["fp32", "amp"] = Field("amp", description="amp: bf16 autocast on CUDA, no effect on CPU")
