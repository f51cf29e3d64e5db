"""Hold the core against golden arrays of the published implementation (`excel parity PREFIX`).

Every key is computed by the functions the pipeline itself uses, in `reference` mode, from the golden inputs alone:
sizes, class counts and grids are read from the arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import (
    affinity_cams,
    dynamic_attention,
    mean_attention,
    scale_attention,
    upsample_with_background,
)
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.patch_text import normalise_tokens, patch_text_cams
from excel_core.config import KnowledgeSpec, RefineSpec
from excel_core.config.presets import preset
from excel_core.errors import StoreError
from excel_core.evaluation.metrics import confusion_matrix, scores
from excel_core.files import first_sentence
from excel_core.models.calibration import calibrated_features, encoder_activations, layer_features, relation_of
from excel_core.models.clip import FrozenClip
from excel_core.models.clip_weights import clip_from_openai_state
from excel_core.models.published_names import published_segmenter, segmenter_sizes
from excel_core.models.segmenter import Segmenter
from excel_core.text.knowledge import enrich
from excel_core.training.losses import diversity_loss, pair_labels, segmentation_loss

__all__ = [
    "Arrays", "Comparison", "Tolerances", "compare_array", "compare_with_goldens", "golden_clip", "golden_segmenter",
    "golden_texts", "load_goldens", "require_shapes",
]  # fmt: skip

Arrays = dict[str, NDArray[Any]]
MAX_KEYS = 5  # that an error names


@dataclass(frozen=True)
class Tolerances:
    """Largest error of a key: `array`, of the largest golden magnitude unless `absolute`; `labels`, the share of pixels that
    may differ; `loss`, relative."""

    array: float = 1e-4
    labels: float = 1e-3
    loss: float = 1e-5
    absolute: bool = False


@dataclass(frozen=True)
class Comparison:
    """One golden key: largest error in the unit of its tolerance."""

    key: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is finite and within tolerance."""
        return bool(np.isfinite(self.error)) and self.error <= self.tolerance


def compare_with_goldens(prefix: Path) -> list[Comparison]:
    """Compare with PREFIX.npz, PREFIX_clip.npz, PREFIX_head.npz; one Comparison per golden key that is not an input."""
    golden, clip = load_goldens(_part(prefix, "")), golden_clip(prefix)
    _require_inputs(golden, clip, _part(prefix, ""))
    with torch.inference_mode():
        computed = _compute(golden, clip, golden_segmenter(prefix, clip, golden["static_cams"].shape[-1]))
    inputs = {"image", "text", "bank", "par_image"} | {key for key in golden if key.startswith("classes_")}
    missing = sorted(set(golden) - inputs - set(computed))
    results = [compare_array(key, computed[key], golden[key], Tolerances()) for key in golden if key in computed]
    return results + [Comparison(f"{key} (not computed)", float("nan"), 0.0) for key in missing]


def golden_texts(prefix: Path, clip: FrozenClip, classes: int) -> tuple[Tensor, Tensor]:
    """Texts (C+Z, D) and attributes (A, D) in PREFIX.npz; StoreError unless they are of the CLIP's width and of `classes`."""
    path = _part(prefix, "")
    golden = load_goldens(path)
    require_shapes(golden, {"text": (None, clip.joint_width), "bank": (clip.joint_width, None)}, path)
    if len(golden["text"]) < classes:
        raise StoreError(f"{path}: 'text' must have a row for each of {classes} classes, got {len(golden['text'])}")
    return torch.from_numpy(golden["text"]), torch.from_numpy(golden["bank"]).T.contiguous()


def golden_clip(prefix: Path) -> FrozenClip:
    """The CLIP in PREFIX_clip.npz, under OpenAI's names."""
    return clip_from_openai_state(_tensors(load_goldens(_part(prefix, "_clip"))), quick_gelu=True)


def golden_segmenter(prefix: Path, clip: FrozenClip, classes: int) -> Segmenter:
    """Neck and head in PREFIX_head.npz, in evaluation mode and without dropout."""
    segmenter = _segmenter(_tensors(load_goldens(_part(prefix, "_head"))), clip, classes)
    segmenter.neck.dropout.p = 0.0
    return segmenter


def _compute(golden: Arrays, clip: FrozenClip, segmenter: Segmenter) -> dict[str, Tensor]:
    """Every golden output, keyed as in the archive: activations, static and dynamic CAMs, then labels and losses."""
    run = preset("voc", "reference")
    cams_spec, calibration, refine = run.cams, run.cams.calibration, run.refine
    image, text, bank = (torch.from_numpy(golden[key]) for key in ("image", "text", "bank"))
    classes = golden["static_cams"].shape[-1]
    out: dict[str, Tensor] = {}

    # Text enrichment (eqs. 2-4), static calibration (eqs. 5, 6), CAMs (eq. 1).
    enriched = enrich(text[:classes], bank.T.contiguous(), KnowledgeSpec())
    out["text_enriched"] = knowledge = torch.cat([enriched, text[classes:]])
    height, width = (side // clip.patch * clip.patch for side in image.shape[-2:])  # the CLIP sees whole patches alone
    activations = encoder_activations(clip, image[..., :height, :width], calibration, refine.affinity.layers)
    calibrated = calibrated_features(clip, activations, calibration)
    out["svc_features"] = projected = clip.project(calibrated)
    out["svc_features_token_normalised"] = normalise_tokens(projected, cams_spec)
    static = patch_text_cams(projected, knowledge, classes, cams_spec)
    out["static_cams"] = static.mT
    out["layer_features"] = layers = layer_features(activations, calibrated, calibration)
    scaled = scale_attention(activations.attention, clip.heads, calibration, refine.affinity)
    out["attention_layer7"] = activations.attention[0]
    out["attention_mean_last6"] = attention = mean_attention(scaled, refine.affinity)

    # The segmenter, its relation, and CAMs of the learnt calibration (eqs. 8-10).
    segmentation = segmenter(layers, activations.grid)
    out["adapter_features"], out["seg_logits"] = segmentation.features, segmentation.logits
    relation = relation_of(segmentation.features, calibration)
    out["relation"] = relation.probability
    dynamic_features = clip.project(calibrated_features(clip, activations, calibration, relation))
    dynamic = patch_text_cams(dynamic_features, knowledge, classes, cams_spec)
    out["dynamic_cams"] = dynamic.mT

    sharpened = dynamic_attention(scaled, relation.probability, refine.affinity)
    out.update(_compute_labels(golden, (static, attention), (dynamic, sharpened), activations.grid, refine))
    out.update(_compare_losses(golden, segmentation.logits, relation.probability, activations.grid, run.train.radius))
    return out


def _compute_labels(
    golden: Arrays,
    static: tuple[Tensor, Tensor],
    dynamic: tuple[Tensor, Tensor],
    grid: tuple[int, int],
    refine: RefineSpec,
) -> dict[str, Tensor]:
    """CAMs (B, C, M) and attention (B, M, M), static and dynamic → refined CAMs of each image's classes, and its labels."""
    out: dict[str, Tensor] = {}
    size = (golden["image"].shape[-2], golden["image"].shape[-1])
    labels, dynamic_labels = [], []
    for i in range(len(golden["image"])):
        classes = torch.from_numpy(golden[f"classes_{i}"])
        static_cams, dynamic_cams = (cams[i, classes].reshape(-1, *grid) for cams, _ in (static, dynamic))
        out[f"caa_{i}"] = caa = affinity_cams(static_cams, static[1][i], refine.affinity)
        out[f"caa_dynamic_{i}"] = dynamic_caa = affinity_cams(dynamic_cams, dynamic[1][i], refine.affinity)
        colours = torch.from_numpy(golden["par_image"])[i : i + 1]
        maps = [
            upsample_with_background(cams, size, refine.background_power, epsilon=refine.affinity.epsilon)
            for cams in (caa, dynamic_caa)
        ]
        refined = [pixel_adaptive_refinement(colours, each[None], refine.par)[0] for each in maps]
        out[f"cams_with_background_{i}"], out[f"par_{i}"] = maps[0], refined[0]
        values = torch.cat([torch.zeros(1, dtype=torch.long), classes + 1])  # label of each map: background, then classes
        labels.append(values[refined[0].argmax(dim=0)])
        dynamic_labels.append(values[refined[1].argmax(dim=0)])
    return out | {"pseudo_labels": torch.stack(labels), "pseudo_labels_dynamic": torch.stack(dynamic_labels)}


def _compare_losses(
    golden: Arrays, logits: Tensor, probability: Tensor, grid: tuple[int, int], radius: int | None
) -> dict[str, Tensor]:
    """Losses and scores against the golden pseudo labels, which are these keys' own inputs."""
    truth = torch.from_numpy(golden["pseudo_labels"]).long()
    full = F.interpolate(logits, size=truth.shape[-2:], mode="bilinear", align_corners=False)
    pairs = pair_labels(truth, grid, radius)
    names = [str(index) for index in range(logits.shape[1])]
    matrix = confusion_matrix(truth.numpy(), full.argmax(dim=1).numpy(), len(names))
    result = scores(matrix, names)
    iou = [float("nan") if result.iou[name] is None else result.iou[name] for name in names]
    return {
        "affinity_labels": pairs,
        "loss_seg": segmentation_loss(full, truth),
        "loss_div": diversity_loss(probability, pairs),
        "iou_vs_pseudo": torch.tensor(iou, dtype=torch.float64),
        "miou_vs_pseudo": torch.tensor(result.miou, dtype=torch.float64),
    }


def _segmenter(state: dict[str, Tensor], clip: FrozenClip, classes: int) -> Segmenter:
    """The segmenter holding a published neck + decoder state dict."""
    segmenter = published_segmenter(state, None, "PREFIX_head.npz")
    sizes = segmenter_sizes(state, "PREFIX_head.npz")
    sizes.require(replace(sizes, classes=classes, blocks=len(clip.blocks), token_width=clip.width), "PREFIX_head.npz")
    return segmenter


def compare_array(key: str, computed: Tensor, golden: NDArray[Any], tolerances: Tolerances) -> Comparison:
    """One key: golden uint8 arrays are labels, keys with `loss` losses, each on its own; the rest are arrays."""
    result = computed.numpy()
    if result.shape != golden.shape:
        return Comparison(f"{key} (shape {result.shape}, golden {golden.shape})", float("nan"), 0.0)
    if golden.dtype == np.uint8:
        return Comparison(key, float((result != golden).mean()), tolerances.labels)
    defined = ~np.isnan(golden)  # classes without pixels have no IoU
    if not np.array_equal(defined, ~np.isnan(result)):
        return Comparison(f"{key} (defined elsewhere)", float("nan"), 0.0)
    errors, magnitudes = np.abs(result - golden)[defined], np.abs(golden[defined])
    if "loss" in key:
        relative = errors / np.where(magnitudes > 0, magnitudes, 1)
        return Comparison(key, float(relative.max(initial=0.0)), tolerances.loss)
    scale = 1.0 if tolerances.absolute else float(magnitudes.max(initial=0.0)) or 1.0
    return Comparison(key, float(errors.max(initial=0.0)) / scale, tolerances.array)


def require_shapes(arrays: Arrays, shapes: Mapping[str, tuple[int | None, ...]], path: Path) -> None:
    """StoreError naming the first array of `path` that is missing or not of its shape; None stands for any length."""
    for key, shape in shapes.items():
        if key not in arrays:
            raise StoreError(f"{path}: has no array {key!r}; it has {', '.join(list(arrays)[:MAX_KEYS]) or 'none'}")
        actual = arrays[key].shape
        if len(actual) != len(shape) or any(n not in (None, m) for n, m in zip(shape, actual, strict=True)):
            expected = ", ".join("any" if n is None else str(n) for n in shape)
            raise StoreError(f"{path}: {key!r} must be ({expected}), got {actual}; give the files of one and the same model")


def _require_inputs(golden: Arrays, clip: FrozenClip, path: Path) -> None:
    """What everything else is computed from; labels and losses are held against the same images."""
    require_shapes(golden, {"image": (None, 3, None, None), "static_cams": (None, None, None)}, path)
    images, side, width = len(golden["image"]), golden["image"].shape[2:], clip.joint_width
    per_image: dict[str, tuple[int | None, ...]] = {f"classes_{i}": (None,) for i in range(images)}
    require_shapes(golden, per_image | {"text": (None, width), "bank": (width, None)}, path)
    require_shapes(golden, {"par_image": (images, 3, *side), "pseudo_labels": (images, *side)}, path)


def load_goldens(path: Path) -> Arrays:
    """The arrays of a golden file; StoreError where it is missing, empty or no .npz file."""
    if not path.is_file():
        raise StoreError(f"{path} does not exist; parity needs PREFIX.npz, PREFIX_clip.npz and PREFIX_head.npz")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # NumPy would not close a damaged one
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # NumPy, zip and zlib raise many kinds; TypeError: of one array, an .npy file
        why = first_sentence(error)
        raise StoreError(f"{path}: not readable as an .npz file ({why}); give the file of golden arrays") from None
    if not arrays:
        raise StoreError(f"{path}: holds no arrays; give the file of golden arrays")
    return arrays


def _part(prefix: Path, suffix: str) -> Path:
    if not prefix.name:
        raise StoreError(f"PREFIX {str(prefix)!r} names no file; parity needs PREFIX.npz, PREFIX_clip.npz and PREFIX_head.npz")
    return prefix.with_name(f"{prefix.name}{suffix}.npz")


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in arrays.items()}
