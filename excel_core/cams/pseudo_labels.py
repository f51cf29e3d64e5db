"""From CAMs and patch attention to label maps: affinity, PAR and CRF (method 4), for whole photos and for training's crops."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import affinity_cams, upsample_with_background
from excel_core.cams.crf import appearance_colours, dense_crf
from excel_core.cams.large_photos import large_label_steps
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.config import ParSpec, RefineSpec
from excel_core.datasets.palette import IGNORE
from excel_core.disk_maps import is_large

__all__ = [
    "cams_of_slots", "class_slots", "crf_scores", "crf_source", "crf_steps", "label_steps", "par_colours", "refine_batch",
    "refine_labels", "refine_maps", "refine_slots", "refined_labels", "step_names", "voted_step", "without_votes",
]  # fmt: skip

Image = NDArray[np.uint8]


def step_names(spec: RefineSpec) -> list[str]:
    """The steps of label maps that are enabled, in order: those of `refine_labels`, and the votes of masks (mask_votes.py)."""
    enabled = {"affinity": spec.affinity.enabled, "par": spec.par.enabled, "crf": spec.crf.enabled}
    enabled["confident"] = spec.crf.enabled and spec.crf.confidence is not None
    enabled["votes"] = spec.votes.enabled
    return ["raw", *(step for step, is_enabled in enabled.items() if is_enabled)]


def refine_labels(
    image: Image, network_input: Tensor, classes: Sequence[int], cams: Tensor, attention: Tensor, spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """Image (H, W, 3), network input (3, S, S), K class indices, cams (K, h, w), attention (M, M) → label maps (H, W) by step.

    Steps in order: 'raw', then 'affinity', 'par', 'crf', 'confident' as enabled. 0 is background, c+1 class c; 255 a pixel that
    'confident' gives no label. The last is the pseudo label. A large photo goes through window by window, to the same labels.
    """
    return dict(refined_labels(image, network_input, classes, cams, attention, spec))


def refined_labels(
    image: Image, network_input: Tensor, classes: Sequence[int], cams: Tensor, attention: Tensor, spec: RefineSpec
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """As `refine_labels`, step by step: (step, label map (H, W) uint8); of a large photo, one map is held at a time."""
    if is_large(image.shape):
        return large_label_steps(image, network_input, classes, cams, attention, spec)
    return iter(label_steps(image, classes, refine_maps(image, network_input, cams, attention, spec), spec).items())


def refine_maps(image: Image, network_input: Tensor, cams: Tensor, attention: Tensor, spec: RefineSpec) -> dict[str, Tensor]:
    """The steps of `refine_labels` on the model's device → maps (K+1, H, W) by step, background first. All at once: 300 bytes a
    pixel and more."""
    size = image.shape[:2]
    # Raw CAMs are in [0, 1] by the min-max over all tokens; a second one over patches alone would move their background.
    maps = upsample_with_background(cams, size, spec.background_power, rescale=False)
    steps = {"raw": maps}
    if spec.affinity.enabled:
        refined = affinity_cams(cams, attention, spec.affinity)
        steps["affinity"] = maps = upsample_with_background(
            refined, size, spec.background_power, epsilon=spec.affinity.epsilon, half=spec.precision == "fp16"
        )
    if spec.par.enabled:
        steps["par"] = pixel_adaptive_refinement(par_colours(image, network_input, spec.par), maps[None], spec.par)[0]
    return steps


def par_colours(image: Image, network_input: Tensor, spec: ParSpec) -> Tensor:
    """The colours that guide PAR on a whole photo: image (H, W, 3) uint8, network input (3, S, S) → (1, 3, H, W) float32.

    Published: the network input, enlarged with corners aligned, which moves 0.7 % of the labels against the photo's own pixels.
    """
    if spec.image == "photo":
        return torch.from_numpy(image).to(network_input.device).permute(2, 0, 1)[None].float()
    return F.interpolate(network_input[None].float(), size=image.shape[:2], mode="bilinear", align_corners=True)


def label_steps(
    image: Image, classes: Sequence[int], steps: dict[str, Tensor], spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """The steps of `refine_labels` on one CPU core, labels and CRF: maps of `refine_maps` → label maps (H, W) uint8 by step."""
    names = _label_names(classes)
    labels = {step: names[scores.argmax(dim=0).cpu().numpy()] for step, scores in steps.items()}
    if spec.crf.enabled:
        scores = crf_scores(steps[crf_source(spec)], 0, spec)
        labels |= crf_steps(image, classes, scores.cpu().numpy(), spec)
    return labels


def crf_steps(
    image: Image, classes: Sequence[int], scores: NDArray[np.float32], spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """Image (H, W, 3), K class indices, `crf_scores` (K+1, H, W) → the steps 'crf' and, where it is enabled, 'confident'."""
    refined = dense_crf(appearance_colours(image, spec.crf), scores, spec.crf)
    labels: NDArray[np.uint8] = _label_names(classes)[refined.argmax(axis=0)]
    if spec.crf.confidence is None:
        return {"crf": labels}
    sure = refined.max(axis=0) >= spec.crf.confidence
    return {"crf": labels, "confident": np.where(sure, labels, np.uint8(IGNORE))}


def _label_names(classes: Sequence[int]) -> NDArray[np.uint8]:
    """The label of each map, background first."""
    return np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)


def crf_scores(maps: Tensor, dim: int, spec: RefineSpec) -> Tensor:
    """maps (..., K+1, ...) with labels along `dim` → what the CRF takes for their probabilities, of the same shape, at least 0;
    float16 where the maps are rounded to that, else float32."""
    scores = maps.float().clamp_min(0)
    if spec.crf.normalised:
        return scores / scores.sum(dim=dim, keepdim=True).clamp_min(1e-8)
    return scores.half() if spec.precision == "fp16" else scores


def voted_step(spec: RefineSpec) -> str:
    """The step on whose label maps masks vote: the CRF's, or the last before it. Never `confident`, whose maps leave pixels
    without a label."""
    before = [step for step in step_names(spec) if step not in ("crf", "confident", "votes")]
    return "crf" if spec.votes.of == "crf" and spec.crf.enabled else before[-1]


def without_votes(spec: RefineSpec) -> RefineSpec:
    """`spec` for labels that no masks vote on, such as training's own."""
    return spec.model_copy(update={"votes": spec.votes.model_copy(update={"enabled": False})})


def crf_source(spec: RefineSpec) -> str:
    """The step whose maps the CRF of CAM seeds refines: the last one, or the last before PAR (published)."""
    skipped = ("crf", "confident", "votes") if spec.crf.of == "par" else ("par", "crf", "confident", "votes")
    return [step for step in step_names(spec) if step not in skipped][-1]


def class_slots(classes: Sequence[Sequence[int]], least: int = 1) -> Tensor:
    """Class indices of each of B images → (B, slots) int64 on the CPU, -1 where an image has fewer: as many slots as the image
    with most classes needs, and at least `least`. So images of different numbers of classes go through as one batch."""
    slots = max(least, *(len(image_classes) for image_classes in classes))
    return torch.tensor([[*image_classes, *[-1] * (slots - len(image_classes))] for image_classes in classes])


def cams_of_slots(cams: Tensor, class_of_slot: Tensor) -> Tensor:
    """cams (B, C, h, w) of all classes, `class_slots` (B, slots) on their device → (B, slots, h, w), zeros in empty slots."""
    index = class_of_slot.clamp_min(0)[..., None, None].expand(-1, -1, *cams.shape[-2:])
    return cams.gather(1, index).masked_fill((class_of_slot < 0)[..., None, None], 0)


def refine_batch(pixels: Tensor, class_of_slot: Tensor, cams: Tensor, attention: Tensor, spec: RefineSpec) -> Tensor:
    """`refine_slots` of the CAMs (B, C, h, w) of all classes."""
    return refine_slots(pixels, class_of_slot, cams_of_slots(cams, class_of_slot), attention, spec)


def refine_slots(pixels: Tensor, class_of_slot: Tensor, slot_cams: Tensor, attention: Tensor, spec: RefineSpec) -> Tensor:
    """Training's pseudo labels: pixels (B, 3, S, S), `class_slots` (B, slots), CAMs of the slots (B, slots, h, w), attention
    (B, M, M), on one device → labels (B, S, S) int64. Affinity and PAR as enabled, on the whole batch at once.

    Nothing passes between the device and the host, so that a CUDA graph may hold all of it.
    """
    size = (pixels.shape[-2], pixels.shape[-1])
    empty = (class_of_slot < 0)[..., None, None]
    if spec.affinity.enabled:
        slot_cams = affinity_cams(slot_cams, attention, spec.affinity)
    maps = upsample_with_background(
        slot_cams, size, spec.background_power, rescale=spec.affinity.enabled, epsilon=spec.affinity.epsilon
    )
    maps[:, 1:].masked_fill_(empty, -1)  # below any score, so an empty slot never wins
    if spec.par.enabled:
        maps = pixel_adaptive_refinement(pixels, maps, spec.par)
    label_of_slot = F.pad(class_of_slot + 1, (1, 0))  # slot 0 is background, label 0
    winner = maps.argmax(dim=1)
    return label_of_slot.gather(1, winner.flatten(1)).reshape(winner.shape)
