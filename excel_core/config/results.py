"""What is made of a trained segmenter: label maps, scores, ablation, figures, report."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from excel_core.config.base import Positive, Spec, Unit
from excel_core.errors import SettingError

__all__ = [
    "AblationSpec", "BenchmarkSpec", "CurveSpec", "DynamicSpec", "EvaluateSpec", "FigureSpec", "PaperSpec", "PredictSpec",
    "QualitySpec",
    "ReportSpec",
]  # fmt: skip


class PredictSpec(Spec):
    """The trained segmenter's label maps of the validation and test splits (method 6)."""

    protocol: Literal["square", "longest_side", "whole_patches"] = Field(
        "square",
        description="square: the photo as image_size x image_size, every scale made from the photo; longest_side: its longer "
        "side image_size, scales made from that and averaged on its grid of patches (WeCLIP, peers.md 3.8); whole_patches: so, "
        "with sides of whole patches",
    )
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=16)], ...], Field(min_length=1)] = Field(
        (0.7, 1.0, 1.2, 1.5), description="of multi-scale inference: the photo is resized to each times image_size"
    )
    flip: Literal["all", "not_at_1"] = Field(
        "not_at_1", description="flip averaging at every scale, or (published VOC) not at scale 1.0"
    )
    average_at: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of the photo's sides at which the logits of scales are averaged; COCO as published: 0.2"
    )
    image_size: Annotated[int, Field(ge=32)] = Field(320, description="side S the image is resized to at scale 1.0")
    sides: Literal["published", "whole_patches"] = Field(
        "published",
        description="protocol=square: the side of a scale in pixels, int(scale x image_size), of which the CLIP cuts off what "
        "is left over of a patch (published); or rounded to whole patches. For image_size=320 the same",
    )
    crf: bool = Field(True, description="also multi-scale + CRF, with the weights of refine.crf")
    max_images: Positive | None = Field(None, description="first so many images of a split; None: all")


class DynamicSpec(Spec):
    """CAMs of the learnt calibration (LVC) on whole photos (method 5)."""

    mirror: bool = Field(True, description="a photo and its mirror are seen together; a CAM is the greater of the two")


class CurveSpec(Spec):
    """Scores of the segmenters that `train.keep_every` keeps (method 5)."""

    threshold: Unit = Field(0.75, description="affinity threshold of its pseudo labels, as in the published log")
    max_images: Positive | None = Field(None, description="first so many images of a split; None: all")


class EvaluateSpec(Spec):
    """Scores (method 6); each names its protocol."""

    kinds: tuple[Literal["static", "lvc", "segmentation"], ...] = Field(
        ("static", "lvc", "segmentation"),
        description="what is scored: static seeds, seeds with LVC, segmentation; a report needs all",
    )
    ablation: bool = Field(False, description="score CAMs of every calibration mode on the validation splits, one seed")
    max_images: Positive | None = Field(None, description="first so many images of a split; None: all")


class PaperSpec(Spec):
    """One table of the paper, ours beside the published figures (method 10)."""

    table: Literal["table-1", "table-2", "table-3", "table-4", "table-5", "table-6", "table-7"] = Field(
        "table-1", description="which table"
    )
    limit: Positive | None = Field(None, description="images of each split: to try a table out, which is no reproduction")


class AblationSpec(Spec):
    """The flows `ablation`: raw CAMs of the rows of the paper's tables 3, 4 and 5, on the validation splits; and `upgrades`."""

    groups: tuple[Literal["components", "attributes", "calibration", "method", "upgrades"], ...] = Field(
        ("components", "attributes", "calibration", "method"),
        description="which rows: components (table 3), number of attributes (4), calibration (5), method; upgrades: each "
        "training-free upgrade alone, and pseudo labels of the seed splits",
    )
    second_encoder: str | None = Field(
        None, description="upgrades: as dino.model, the encoder of the row with ProxyCLIP's attention; None: no such row"
    )
    own_trainings: bool = Field(True, description="also rows that need another training than the run's")
    attributes: tuple[Positive, ...] = Field((32, 64, 112, 144, 196), description="numbers of attributes; none is a row too")
    seeds: Annotated[int, Field(ge=1, le=20)] = Field(3, description="seeds of k-means and training, from the run's own on")
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(1000, description="bootstrap resamples of the images")


class BenchmarkSpec(Spec):
    """The flow `benchmark`: methods on the same images, each against the first."""

    methods: tuple[str, ...] = Field((), description="methods, the one that others are compared with first")
    own_settings: tuple[str, ...] = Field((), description="METHOD.stage.field=value: settings of one method alone")
    seeds: Annotated[int, Field(ge=1, le=20)] = Field(3, description="seeds of k-means and training, from the run's own on")
    limit: Positive | None = Field(None, description="images of each split, to try it out; training is shortened with it")
    iterations: Positive | None = Field(None, description="trainings are cut to so many, their schedules too; None: whole ones")
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(1000, description="bootstrap resamples of the images")
    gallery_images: Annotated[int, Field(ge=0, le=24)] = Field(
        6, description="images shown of seeds, and as many of segmentation: those on which methods disagree most"
    )


class FigureSpec(Spec):
    """The paper's figures 4 to 6 on a few images (method 9)."""

    images: Annotated[tuple[str, ...], Field(max_length=12)] = Field(
        (), description="ids of the images shown; none: the first labelled ones of the validation splits"
    )
    count: Annotated[int, Field(ge=1, le=12)] = Field(4, description="how many images are shown where none is named")
    attributes: Annotated[int, Field(ge=1, le=6)] = Field(4, description="attributes shown of a class, largest weight first")
    query: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = Field(
        None, description="row and column of the query patch; None: the strongest patch of the class's static CAM"
    )

    @field_validator("images", mode="before")
    @classmethod
    def _ids_are_text(cls, value: Any) -> Any:
        """YAML reads 2007_000033 as the number 2007000033 and 000000000127 as octal: the id is lost."""
        numbers = [item for item in value if not isinstance(item, str)] if isinstance(value, list | tuple) else []
        if numbers:
            raise SettingError(
                f"figures.images: an id must be text, got the number {numbers[0]}; quote ids of digits: "
                "--set 'figures.images=[\"2007_000033\"]'"
            )
        return value


class QualitySpec(Spec):
    """What a person should look at first, told without any truth (docs/upgrades.md)."""

    enabled: bool = Field(False, description="whether pseudo labels are ranked and doubtful image-level labels are listed")
    unseen: Unit = Field(
        0.8, description="a given label is doubtful if CLIP sees it less than this share of the images without the class"
    )
    seen: Unit = Field(
        0.5, description="a label that is not given is doubtful if CLIP sees it more than this share of the images with it"
    )
    listed: Annotated[int, Field(ge=1, le=1000)] = Field(24, description="rows of each table in the report")


class ReportSpec(Spec):
    """What the report shows."""

    gallery_images: Annotated[int, Field(ge=0, le=24)] = Field(9, description="images: best, median and worst, a third each")
    images: Annotated[int, Field(ge=0, le=20_000)] = Field(
        300, description="images in its explorer at most, evenly over each split's ranking; more than 300 lie beside the page"
    )
