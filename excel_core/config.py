"""Frozen specs of every stage, with VOC's published hyper-parameters as defaults; presets.py builds runs from them.

Specs refuse unknown fields and values out of bounds. Equation numbers are the paper's.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from excel_core.errors import SettingError

__all__ = [
    "AblationSpec", "AffinitySpec", "CalibrationSpec", "CamSpec", "ClipSpec", "CrfSpec", "DatasetSpec",
    "DescribeSpec", "EvaluateSpec", "KnowledgeSpec", "ParSpec", "PredictSpec", "RefineSpec", "ReportSpec", "RunSpec",
    "SegmenterSpec", "ShardSpec", "Spec", "TrainSpec",
]  # fmt: skip

Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what NumPy, scikit-learn and PyTorch all take


class Spec(BaseModel):
    """Base of all specs: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetSpec(Spec):
    """Where images and image-level labels come from."""

    layout: Literal["voc", "world", "coco", "folder"] = Field("voc", description="how the data folder is laid out")
    prompts: str = Field("voc", description="class file: one of prompts/, a path, or `data`: the data folder's own classes")
    train_split: str = Field("train", description="split whose image-level labels supervise")
    val_splits: tuple[str, ...] = Field(("val",), description="splits the segmenter is scored on, where they have masks")
    test_splits: tuple[str, ...] = Field((), description="further splits it segments, without labels and masks")
    max_images: Positive | None = Field(None, description="first so many images of each split; None: all")
    max_bad: Unit = Field(0.01, description="share of bad images that ends the run before work starts; one is always skipped")
    max_side: Annotated[int, Field(ge=64)] | None = Field(
        None,
        description="folder: longer side of a photo, pixels; larger ones are shrunk, their label maps too; None: no limit",
    )
    scene_size: Annotated[int, Field(ge=32, le=1024)] = Field(128, description="world: side of a scene, pixels")
    train_scenes: Positive = Field(240, description="world: training scenes")
    val_scenes: Positive = Field(40, description="world: held-out scenes of each validation split")


class DescribeSpec(Spec):
    """Class descriptions (method 1)."""

    provider: Literal["bundled", "openai"] = Field(
        "bundled", description="who writes the descriptions: a file, or a language model behind an OpenAI-compatible server"
    )
    n: Annotated[int, Field(ge=1, le=100)] = Field(20, description="descriptions a class")
    instruction: str | None = Field(None, description="openai: file with the request; None: prompts/describe.md")
    model: Annotated[str, Field(min_length=1)] = Field("gpt-4.1-mini", description="openai: name of the model")
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")] | None = Field(
        None, description="openai: another server, e.g. http://127.0.0.1:11434/v1; None: OpenAI's"
    )
    secret: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = Field(
        None, description="openai: Prefect Secret block that holds the API key; None: the variable OPENAI_API_KEY"
    )
    structured: Literal["json_schema", "json_object", "text"] = Field(
        "json_schema", description="openai: how the reply's form is asked for; for servers that know no schema, or no JSON mode"
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="openai: of sampling; None: the server's own"
    )
    concurrency: Annotated[int, Field(ge=1, le=8)] = Field(4, description="openai: requests at a time")
    timeout: Annotated[float, Field(gt=0, le=3600)] = Field(120, description="openai: seconds to wait for a silent server")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(
        5, description="openai: tries after the first one fails by rate limit, server error, time or connection"
    )
    input_price: Annotated[float, Field(ge=0)] | None = Field(None, description="openai: USD per million prompt tokens")
    output_price: Annotated[float, Field(ge=0)] | None = Field(None, description="openai: USD per million completion tokens")

    @field_validator("base_url", mode="before")
    @classmethod
    def _no_credentials(cls, value: Any) -> Any:
        """Refused with words of its own: pydantic's would show the URL."""
        if isinstance(value, str) and any(sign in value for sign in "@?#"):
            raise SettingError(
                "describe.base_url: must be http(s)://HOST[:PORT]/PATH without user, password, query or fragment; "
                "the key belongs into OPENAI_API_KEY or a Prefect Secret block (describe.secret)"
            )
        return value


class ClipSpec(Spec):
    """The frozen CLIP that everything looks through."""

    model: str = Field("ViT-B-16:openai", description="excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE")


class KnowledgeSpec(Spec):
    """Text semantic enrichment (method 1, eqs. 2-4)."""

    mode: Literal["attributes", "class_mean", "none"] = Field(
        "attributes", description="enrich by k-means attributes, by the class mean of descriptions, or not at all"
    )
    attributes: Positive | None = Field(
        112, description="k-means clusters over all descriptions; None: a quarter of them, at most 112"
    )
    keep: Positive | None = Field(None, description="TOP-K attributes a class; None drops the lowest tenth")
    weight: Annotated[float, Field(ge=0)] = Field(1.0, description="lambda in T_c = t_c + lambda * sum")
    seed: Seed = Field(0, description="random state of k-means")


class CalibrationSpec(Spec):
    """Static and learnable visual calibration (method 2 and 5, eqs. 5, 6, 8-10)."""

    attention: Literal["svc", "v", "qk"] = Field(
        "svc", description="svc: intra-correlation; v: value only (identity); qk: the plain last tokens"
    )
    depth: Positive = Field(5, description="blocks, counted from the last, that are calibrated")
    heads: Literal["sum", "each"] = Field("sum", description="one map summed over heads, or each head its own")
    layers: Literal["published", "true"] = Field(
        "published", description="block outputs with the published aliasing accident, or the true ones"
    )
    relation_mean: Literal["batch", "image"] = Field("batch", description="over what mean(cos) of eq. 8 is taken")


class CamSpec(Spec):
    """Patch-text class activation maps (method 3, eq. 1)."""

    image_size: Annotated[int, Field(ge=32, le=2048)] = Field(320, description="side S the image is warped to")
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


class AffinitySpec(Spec):
    """Class-aware attention affinity (method 4)."""

    enabled: bool = Field(True, description="whether CAMs are propagated along attention")
    layers: Positive = Field(6, description="last blocks whose q-k attention is averaged")
    scale: Literal["published", "mean"] = Field(
        "published", description="published sums over heads in the calibrated blocks; mean averages everywhere"
    )
    threshold: Unit = Field(0.79, description="share of a CAM's maximum that opens a box")
    sinkhorn_steps: Annotated[int, Field(ge=0)] = Field(3, description="column/row normalisations")


class ParSpec(Spec):
    """Pixel-adaptive refinement (method 4)."""

    enabled: bool = Field(True, description="whether PAR is applied")
    dilations: tuple[Positive, ...] = Field((1, 2, 4, 8, 12, 24), description="pixels between neighbours")
    iterations: Annotated[int, Field(ge=0)] = Field(20, description="propagation steps")


class CrfSpec(Spec):
    """Dense CRF (method 4); sigma in pixels and grey levels."""

    enabled: bool = Field(True, description="whether pseudo labels pass the dense CRF")
    engine: Literal["lattice", "pydensecrf"] = Field(
        "lattice", description="who computes it, to the same labels: excel's compiled lattice, or pydensecrf, more slowly"
    )
    least_probability: Unit = Field(
        0.01, description="labels whose probability exceeds this nowhere in the image take no part in it"
    )
    iterations: Annotated[int, Field(ge=0)] = Field(10, description="mean-field steps")
    gaussian_sigma: Annotated[float, Field(gt=0)] = Field(1, description="pixels, of the smoothness term")
    gaussian_weight: Annotated[float, Field(ge=0)] = Field(3, description="of the smoothness term")
    bilateral_sigma: Annotated[float, Field(gt=0)] = Field(67, description="pixels, of the appearance term")
    bilateral_colour_sigma: Annotated[float, Field(gt=0)] = Field(3, description="grey levels, of the appearance term")
    bilateral_weight: Annotated[float, Field(ge=0)] = Field(4, description="of the appearance term")


class RefineSpec(Spec):
    """CAMs to pseudo labels (method 4): affinity, then PAR, then CRF, each switchable."""

    affinity: AffinitySpec = AffinitySpec()
    par: ParSpec = ParSpec()
    crf: CrfSpec = CrfSpec()
    background_power: Annotated[float, Field(gt=0)] = Field(1.0, description="(1 - max CAM) ** power")


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


class PredictSpec(Spec):
    """The trained segmenter's label maps of the validation and test splits (method 6)."""

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.7, 1.0, 1.2, 1.5), description="of multi-scale inference, averaged"
    )
    flip: Literal["all", "not_at_1"] = Field(
        "not_at_1", description="flip averaging at every scale, or (published VOC) not at scale 1.0"
    )
    image_size: Annotated[int, Field(ge=32)] = Field(320, description="side S the image is warped to at scale 1.0")
    crf: bool = Field(True, description="also multi-scale + CRF, with the weights of refine.crf")
    max_images: Positive | None = Field(None, description="first so many images of a split; None: all")


class EvaluateSpec(Spec):
    """Scores (method 6); each names its protocol."""

    ablation: bool = Field(False, description="score CAMs of every calibration mode on the validation splits, one seed")
    max_images: Positive | None = Field(None, description="first so many images of a split; None: all")


class AblationSpec(Spec):
    """The flow `ablation`: raw CAMs of the rows of the paper's tables 3, 4 and 5, on the validation splits."""

    groups: tuple[Literal["calibration", "attributes", "method"], ...] = Field(
        ("calibration", "attributes", "method"), description="which rows: calibration and text, number of attributes, method"
    )
    attributes: tuple[Positive, ...] = Field((32, 64, 112, 144, 196), description="numbers of attributes; none is a row too")
    seeds: Annotated[int, Field(ge=1, le=20)] = Field(3, description="seeds of k-means and training, from the run's own on")
    resamples: Annotated[int, Field(ge=100, le=100_000)] = Field(1000, description="bootstrap resamples of the images")


class ShardSpec(Spec):
    """How images are cut into the pieces that are cached and scheduled on their own, and what those keep for later ones."""

    # Shards are a power of two, so they hold images/2 to images on average: 165 each of VOC's 10,582 at 256, 64 in all.
    # Prefect adds 13 ms to a shard, Dask 0.25 s of its worker's time (bench/overhead.py). Of a shard of CAMs on a CPU (0.87 s
    # an image) that is 0.01 % and 0.2 %; refined as well (0.3 to 5 s more an image), less. On a GPU (200 images/s) a shard of
    # CAMs is 0.8 s: 1.5 % in the flow's process; Dask's 30 % are 16 s in all, 1 % with refinement's own 16 s of both together.
    # 2048 would bring them to 4 %, but a kill loses the shard it was at: at 256 up to 14 minutes of refinement, at 2048 110.
    images: Positive = Field(256, description="images a shard, at most about; shards are cut by a digest of the image's id")
    keep_attention: bool = Field(
        True,
        description="CAMs are stored with the attention that refinement needs, else it encodes each image again: 0.25 MB an "
        "image of 400 patches; none is stored of images of more than 1,024 patches",
    )


class ReportSpec(Spec):
    """What the report shows."""

    gallery_images: Annotated[int, Field(ge=0, le=24)] = Field(9, description="images: best, median and worst, a third each")


class RunSpec(Spec):
    """The whole run, a field a stage."""

    preset: str
    method: str
    dataset: DatasetSpec = DatasetSpec()
    describe: DescribeSpec = DescribeSpec()
    clip: ClipSpec = ClipSpec()
    knowledge: KnowledgeSpec = KnowledgeSpec()
    cams: CamSpec = CamSpec()
    refine: RefineSpec = RefineSpec()
    train: TrainSpec = TrainSpec()
    predict: PredictSpec = PredictSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    ablation: AblationSpec = AblationSpec()
    report: ReportSpec = ReportSpec()
    shards: ShardSpec = ShardSpec()
