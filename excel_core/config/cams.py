"""The frozen CLIP, its CAMs, and their refinement to pseudo labels."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from excel_core.config.base import Positive, Spec, Unit

__all__ = [
    "AffinitySpec", "CalibrationSpec", "CamSpec", "ClipSpec", "CrfSpec", "DinoSpec", "ParSpec", "RefineSpec", "VoteSpec",
]  # fmt: skip


class ClipSpec(Spec):
    """The frozen CLIP that everything looks through."""

    model: str = Field("ViT-B-16:openai", description="excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE")


class DinoSpec(Spec):
    """The second frozen encoder: of WeCLIP+ (peers.md 4.1), and of `cams.calibration.attention=proxy`."""

    model: str | None = Field(
        None, description="dino-tiny, dinov2_vits14 (vitb14, vitl14, each also _reg) from torch's or timm's cache, or NAME:FILE"
    )


class CalibrationSpec(Spec):
    """Static and learnable visual calibration (method 2 and 5, eqs. 5, 6, 8-10)."""

    attention: Literal["svc", "v", "qk", "kk", "proxy"] = Field(
        "svc",
        description="svc: intra-correlation; v: value only (identity); qk: the plain last tokens; kk: keys with a Gaussian "
        "window (NACLIP); proxy: in the last block alone, the cosines of the patches of dino.model (ProxyCLIP). With v, qk and "
        "proxy the learnt relation (LVC) reaches CAMs by the affinity alone",
    )
    gaussian_window: Annotated[float, Field(gt=0, le=1024)] = Field(
        5.0, description="attention=kk: standard deviation of its window, patches"
    )
    middle_share: Unit = Field(
        0.0,
        description="share λ of the middle blocks' mean q-k attention (6 to 9 of 12) in each calibrated block's; ResCLIP: 0.3",
    )
    middle_scale: Annotated[float, Field(gt=0, le=100)] = Field(
        2.0, description="factor τ of the attention where middle_share is above 0"
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
    probability: Literal["relation", "cosine", "inner_product"] = Field(
        "relation",
        description="R̂ is the sigmoid of the relation 3 (cos - mean), of the cosine alone (eq. 11), or of the features' inner "
        "product (WeCLIP)",
    )

    @field_validator("layers", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        """`layers=true` in YAML is a boolean; the word is meant."""
        return "true" if value is True else value


class CamSpec(Spec):
    """Class activation maps: of patches against texts (method 3, eq. 1), or GradCAM (CLIP-ES)."""

    producer: Literal["patch_text", "gradcam"] = Field(
        "patch_text",
        description="what makes CAMs: patches compared with texts; or GradCAM of the last block under a softmax over the "
        "image's own classes and the background prompts, where `features`, `surgery`, `minmax` and `calibration` are not "
        "used, and scales and windows are refused",
    )
    input: Literal["square", "native", "longest_side", "whole_patches"] = Field(
        "square",
        description="what the tower sees of a whole photo: image_size x image_size; or its own size, enlarged to whole patches "
        "by Pillow's bicubic in 8 bits (CLIP-ES), sides of more than 1,024 pixels first shrunk to that; or its shape kept, the "
        "longer side image_size (WeCLIP), with sides of whole patches or not",
    )
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
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1, max_length=16)] = Field(
        (1.0,),
        description="sides of the whole photo whose CAMs are averaged, times image_size, or times window where there is one; "
        "1.0 among them",
    )
    window: Annotated[int, Field(ge=32, le=2048)] | None = Field(
        None, description="side of the windows that slide over the image_size x image_size input, pixels; None: none"
    )
    calibration: CalibrationSpec = CalibrationSpec()
    gradcam_skips: Annotated[int, Field(ge=0, le=4)] = Field(
        0, description="gradcam: blocks left out before the last; published WeCLIP+: 1 on VOC"
    )
    batch_size: Positive = Field(8, description="images per forward pass")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="of the tower's products (autocast), but in training, which has its own"
    )

    @field_validator("scales")
    @classmethod
    def _whole_size(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        """The refinement looks at the attention of the whole size."""
        if 1.0 not in scales or len(set(scales)) < len(scales):
            raise ValueError("1.0 must be among the scales, and none of them twice")
        return scales


class AffinitySpec(Spec):
    """Class-aware attention affinity (method 4)."""

    enabled: bool = Field(True, description="whether CAMs are propagated along attention")
    layers: Positive = Field(6, description="last blocks whose q-k attention is averaged")
    dynamic_layers: Positive | None = Field(
        None, description="last blocks that a learnt relation chooses from, at most all; None: as many as `layers`"
    )
    boxes: bool = Field(
        True, description="spread a CAM from boxes around its strong regions alone; published WeCLIP+: on VOC not"
    )
    scale: Literal["published", "mean"] = Field(
        "published", description="published sums over heads in the calibrated blocks; mean averages everywhere"
    )
    threshold: Unit = Field(0.79, description="share of a CAM's maximum that opens a box")
    epsilon: Annotated[float, Field(ge=0)] = Field(
        1e-7, description="added to a refined CAM's range before it divides, as published"
    )
    sinkhorn_steps: Annotated[int, Field(ge=0)] = Field(3, description="column/row normalisations")


class ParSpec(Spec):
    """Pixel-adaptive refinement (method 4)."""

    enabled: bool = Field(True, description="whether PAR is applied")
    dilations: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (1, 2, 4, 8, 12, 24), description="pixels between neighbours"
    )
    iterations: Annotated[int, Field(ge=0)] = Field(20, description="propagation steps")
    image: Literal["network_input", "normalised", "photo"] = Field(
        "network_input",
        description="which image guides it: the network's input, enlarged to the photo, or in training the crop de-normalised "
        "from it in 8 bits (published); the network's input in training too (WeCLIP); or the photo itself",
    )
    precision: Literal["fp32", "fp16"] = Field(
        "fp32", description="of the affinities on a GPU, which each step reads; a CPU computes in fp32 either way"
    )


class CrfSpec(Spec):
    """Dense CRF (method 4); sigma in pixels and grey levels."""

    enabled: bool = Field(True, description="whether pseudo labels pass the dense CRF")
    engine: Literal["lattice", "pydensecrf"] = Field(
        "lattice",
        description="who computes it, to the same labels: excel's compiled lattice, or pydensecrf, more slowly; "
        "photos of more than 2^20 pixels take the lattice",
    )
    least_probability: Unit = Field(
        0.01, description="labels whose probability exceeds this nowhere in the image take no part in it"
    )
    of: Literal["par", "affinity"] = Field(
        "par", description="which maps of a CAM seed it refines: those after PAR, or those before (published)"
    )
    normalised: bool = Field(
        True, description="whether a CAM seed's maps are divided by their sum over labels first; published: not"
    )
    image: Literal["photo", "wrapped_bgr"] = Field(
        "photo",
        description="of CAM seeds: the colours of the appearance term; wrapped_bgr: blue first, minus a mean colour, cast to 8 "
        "bits, so that dark pixels wrap to bright ones (CLIP-ES as published)",
    )
    confidence: Unit | None = Field(
        None,
        description="of CAM seeds: one more step `confident`, where pixels whose likeliest label has a lower probability after "
        "the CRF are 255; None: no such step",
    )
    iterations: Annotated[int, Field(ge=0)] = Field(10, description="mean-field steps")
    gaussian_sigma: Annotated[float, Field(gt=0)] = Field(1, description="pixels, of the smoothness term")
    gaussian_weight: Annotated[float, Field(ge=0)] = Field(3, description="of the smoothness term")
    bilateral_sigma: Annotated[float, Field(gt=0)] = Field(67, description="pixels, of the appearance term")
    bilateral_colour_sigma: Annotated[float, Field(gt=0)] = Field(3, description="grey levels, of the appearance term")
    bilateral_weight: Annotated[float, Field(ge=0)] = Field(4, description="of the appearance term")


class VoteSpec(Spec):
    """Mask voting on label maps after PAR: masks of a promptable segmenter are taken into classes (docs/upgrades.md).
    Training's own labels have none. What is made with it is marked +SAM."""

    enabled: bool = Field(False, description="whether masks vote on the label maps; they are then the pseudo labels")
    masks: str | None = Field(
        None, description="folder of ready masks, ID.json with COCO RLEs for each image; None: the model proposes them"
    )
    model: str = Field(
        "facebook/sam-vit-base", description="SAM or SAM 2 of transformers, by its name or a folder (extra `sam`)"
    )
    of: Literal["par", "crf"] = Field(
        "par", description="on which label maps they vote: after PAR, or after the CRF, where every pixel has a label"
    )
    inside: Unit = Field(0.5, description="a mask is taken into a class if more than this share of it lies in its label")
    covered: Unit = Field(0.85, description="or if it covers at least this share of the class's label")


class RefineSpec(Spec):
    """CAMs to pseudo labels (method 4): affinity, then PAR, then CRF, each switchable; then votes of masks."""

    affinity: AffinitySpec = AffinitySpec()
    par: ParSpec = ParSpec()
    crf: CrfSpec = CrfSpec()
    votes: VoteSpec = VoteSpec()
    background_power: Annotated[float, Field(gt=0)] = Field(1.0, description="(1 - max CAM) ** power")
    precision: Literal["fp32", "fp16"] = Field(
        "fp32",
        description="of refined CAMs at the photo's size; fp16: rounded before the background is made (CLIP-ES saves them)",
    )
