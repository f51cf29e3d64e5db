"""The variants of a run that the paper's tables compare: parts of the method left out, or computed otherwise."""

from typing import Literal

from excel_core.config import RunSpec
from excel_core.config.presets import with_edits

__all__ = [
    "NO_ATTRIBUTES", "calibrated_by", "cam_upgrades", "with_attributes", "with_votes", "without_attributes", "without_lvc",
    "without_tse", "without_votes",
]  # fmt: skip

Attention = Literal["svc", "v", "qk"]
MAX_SIDE = 2048  # of cams.image_size
# Table 4's None, whose words can be read in two ways (method 1).
NO_ATTRIBUTES: dict[str, Literal["own_descriptions", "class_means"]] = {
    "each class's own descriptions": "own_descriptions",
    "the class means as attributes": "class_means",
}


def without_tse(run: RunSpec) -> RunSpec:
    """`run` without text enrichment: T_c is the template's embedding t_c."""
    return with_edits(run, {"knowledge": {"mode": "none", "attributes_file": None}})


def without_lvc(run: RunSpec) -> RunSpec:
    """`run` trained on static pseudo labels alone, without the diversity loss: nothing learns a relation."""
    return with_edits(run, {"train": {"dynamic_from": None, "own_argmax_from": None, "diversity_weight": 0.0}})


def calibrated_by(run: RunSpec, attention: Attention, depth: int | None = None) -> RunSpec:
    """`run` with another attention in its last `depth` blocks (None: as many as it has): svc, v (MaskCLIP), or none (qk)."""
    calibration = {"attention": attention} | ({} if depth is None else {"depth": depth})
    return with_edits(run, {"cams": {"calibration": calibration}})


def with_attributes(run: RunSpec, count: int) -> RunSpec:
    """`run` with `count` attributes made by k-means."""
    return with_edits(run, {"knowledge": {"mode": "attributes", "attributes": count, "attributes_file": None}})


def without_attributes(run: RunSpec, mode: Literal["own_descriptions", "class_means"]) -> RunSpec:
    """`run` enriched by descriptions that no k-means has clustered."""
    return with_edits(run, {"knowledge": {"mode": mode, "attributes_file": None}})


def cam_upgrades(run: RunSpec) -> dict[str, RunSpec]:
    """`run` with each training-free upgrade of its CAMs alone, by name (docs/upgrades.md)."""
    side = run.cams.image_size
    edits = {
        "k-k with a Gaussian window (NACLIP)": {"calibration": {"attention": "kk"}},
        "middle attention (ResCLIP)": {"calibration": {"middle_share": 0.3}},
        "three sides": {"scales": (0.5, 0.75, 1.0)},
        "windows over twice the side": {"image_size": min(2 * side, MAX_SIDE), "window": side},
    }
    runs = {name: with_edits(run, {"cams": edit}) for name, edit in edits.items()}
    if (encoder := run.ablation.second_encoder) is not None:
        proxy = {"dino": {"model": encoder}, "cams": {"calibration": {"attention": "proxy"}}}
        runs["a second encoder's cosines (ProxyCLIP)"] = with_edits(run, proxy)
    return runs


def with_votes(run: RunSpec) -> RunSpec:
    """`run` whose pseudo labels masks vote on."""
    return with_edits(run, {"refine": {"votes": {"enabled": True}}})


def without_votes(run: RunSpec) -> RunSpec:
    """`run` whose pseudo labels no masks vote on."""
    return with_edits(run, {"refine": {"votes": {"enabled": False}}})
