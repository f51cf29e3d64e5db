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

    enabled: bool = Field(
        True, description="whether the run trains a segmenter; without one it ends with the scores of CAM seeds"
    )
    segmenter: SegmenterSpec = SegmenterSpec()
    iterations: Positive = Field(30000, description="batches in all")
    batch_size: Positive = Field(4, description="crops per batch")
    crop: Annotated[int, Field(ge=32)] = Field(320, description="side of a crop, pixels")
    scale: tuple[Annotated[float, Field(gt=0, le=16)], Annotated[float, Field(gt=0, le=16)]] = Field(
        (0.5, 2.0), description="least and greatest random rescaling before the crop"
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="1e-4 as printed, times 10 as published")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-2, description="of AdamW")
    betas: tuple[Unit, Unit] = Field((0.9, 0.999), description="of AdamW")
    warmup: Annotated[int, Field(ge=0)] = Field(50, description="iterations of linear warm-up from 1e-6 x")
    power: Annotated[float, Field(gt=0)] = Field(1.0, description="of the polynomial decay (1 - t/T)")
    dynamic_from: Annotated[int, Field(ge=0)] | None = Field(
        14000, description="dynamic refined labels from this iteration on; None: never"
    )
    pair_targets: Literal["labels", "static"] = Field(
        "labels", description="labels of affinity pairs: the segmentation's own targets, or always the static ones (eq. 11)"
    )
    own_argmax_from: Annotated[int, Field(ge=0)] | None = Field(
        24000, description="affinity target is the head's own argmax from here on; None: never"
    )
    segmentation_loss: Literal["halves", "mean"] = Field(
        "halves", description="cross-entropy: half background, half foreground (published), or the mean over pixels"
    )
    diversity_loss: Literal["halved", "printed"] = Field(
        "halved", description="pairs' means with a half and 1 added to their number (published), or as eq. 11 is printed"
    )
    diversity_weight: Annotated[float, Field(ge=0)] = Field(0.1, description="of the diversity loss in the sum")
    radius: Positive | None = Field(8, description="Chebyshev radius of affinity pairs on the patch grid; None: all pairs")
    padding: Literal["labelled", "ignored"] = Field(
        "labelled", description="padded crop area: labelled as published, or ignored (255)"
    )
    checkpoint_every: Positive = Field(1000, description="iterations between checkpoints")
    supervision: Literal["labels", "masks"] = Field(
        "labels",
        description="masks: trained on true masks, a fully supervised counterpart for comparison; every number says so",
    )
    crop_rule: Literal["pseudo", "random"] = Field(
        "pseudo",
        description="pseudo: up to 10 draws, until no label covers 75 % of a crop of the run's own static pseudo labels",
    )
    keep_every: Positive | None = Field(
        None, description="also keep the segmenter every so many iterations; the stage curve scores them; None: the last alone"
    )
    from_checkpoint: str | None = Field(
        None, description="a segmenter that the published code trained (.pth, .pt or .safetensors) instead of training"
    )
    order_seed: Seed = Field(2732, description="of the one order of the split that every epoch repeats, as published")
    seed: Seed = Field(0, description="of weights, crops and dropout")
    workers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="processes that decode and crop; None: up to 8 beside a GPU, none beside a CPU, which they would slow"
    )
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = Field(
        "fp32",
        description="of products, faster on a GPU: TF32 for all; or bf16 for tower, neck and head; or fp16 for the tower and "
        "TF32 for the rest",
    )
    cuda_graph: bool = Field(
        True, description="on a GPU, replay each step as one recorded CUDA graph: the same losses, launched in one go"
    )
