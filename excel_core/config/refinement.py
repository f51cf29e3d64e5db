"""From CAMs to pseudo labels."""

from typing import Annotated, Literal

from pydantic import Field

from excel_core.config.base import Positive, Spec, Unit

__all__ = ["AffinitySpec", "CrfSpec", "ParSpec", "RefineSpec"]


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
    dilations: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        (1, 2, 4, 8, 12, 24), description="pixels between neighbours"
    )
    iterations: Annotated[int, Field(ge=0)] = Field(20, description="propagation steps")
    image: Literal["network_input", "photo"] = Field(
        "network_input",
        description="which image guides it: the network's input, enlarged to the photo, or in training the crop de-normalised "
        "from it in 8 bits (published); or the photo itself",
    )


class CrfSpec(Spec):
    """Dense CRF (method 4); sigma in pixels and grey levels."""

    enabled: bool = Field(True, description="whether pseudo labels pass the dense CRF")
    engine: Literal["lattice", "pydensecrf"] = Field(
        "lattice", description="who computes it, to the same labels: excel's compiled lattice, or pydensecrf, more slowly"
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
