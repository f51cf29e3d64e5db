"""From CAMs and patch attention to label maps: affinity, PAR and CRF (method 4), for whole photos and for training's crops."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import affinity_cams, upsample_with_background
from excel_core.cams.crf import dense_crf
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.config import ParSpec, RefineSpec

__all__ = ["crf_source", "label_steps", "par_colours", "refine_batch", "refine_labels", "refine_maps", "step_names"]

Image = NDArray[np.uint8]


def step_names(spec: RefineSpec) -> list[str]:
    """The steps of `refine_labels` that are enabled, in order."""
    enabled = {"affinity": spec.affinity.enabled, "par": spec.par.enabled, "crf": spec.crf.enabled}
    return ["raw", *(step for step, wanted in enabled.items() if wanted)]


def refine_labels(
    image: Image, network_input: Tensor, classes: Sequence[int], cams: Tensor, attention: Tensor, spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """One image (H, W, 3) and its network input (3, S, S), its K class indices, cams (K, h, w), attention (M, M) → label maps
    (H, W) a step.

    Steps in order: 'raw', then 'affinity', 'par', 'crf' as enabled; 0 background, c+1 class c. The last is the pseudo label.
    """
    return label_steps(image, classes, refine_maps(image, network_input, cams, attention, spec), spec)


def refine_maps(image: Image, network_input: Tensor, cams: Tensor, attention: Tensor, spec: RefineSpec) -> dict[str, Tensor]:
    """The part of `refine_labels` that runs on the model's device: maps (K+1, H, W), background first, a step."""
    size = image.shape[:2]
    maps = upsample_with_background(cams, size, spec.background_power, rescale=False)
    steps = {"raw": maps}
    if spec.affinity.enabled:
        refined = affinity_cams(cams, attention, spec.affinity)
        steps["affinity"] = maps = upsample_with_background(refined, size, spec.background_power)
    if spec.par.enabled:
        steps["par"] = pixel_adaptive_refinement(par_colours(image, network_input, spec.par), maps[None], spec.par)[0]
    return steps


def par_colours(image: Image, network_input: Tensor, spec: ParSpec) -> Tensor:
    """What guides PAR on a whole photo: image (H, W, 3) uint8, its network input (3, S, S) → (1, 3, H, W) float32.

    Published: the network input, enlarged with corners aligned; or the photo's own pixels.
    """
    if spec.image == "photo":
        return torch.from_numpy(image).to(network_input.device).permute(2, 0, 1)[None].float()
    return F.interpolate(network_input[None].float(), size=image.shape[:2], mode="bilinear", align_corners=True)


def label_steps(
    image: Image, classes: Sequence[int], steps: dict[str, Tensor], spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """The part of `refine_labels` that runs on one core, the CRF: `steps` as `refine_maps` gives them → label maps (H, W)."""
    names = np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)
    labels = {step: names[scores.argmax(dim=0).cpu().numpy()] for step, scores in steps.items()}
    if spec.crf.enabled:
        scores = steps[crf_source(spec)].float().clamp_min(0)
        if spec.crf.normalised:
            scores = scores / scores.sum(dim=0, keepdim=True).clamp_min(1e-8)
        labels["crf"] = names[dense_crf(image, scores.cpu().numpy(), spec.crf).argmax(axis=0)]
    return labels


def crf_source(spec: RefineSpec) -> str:
    """The step whose maps the CRF of CAM seeds refines: the last one, or the last before PAR (published)."""
    return [step for step in step_names(spec) if step != "crf" and (step != "par" or spec.crf.of == "par")][-1]


def refine_batch(pixels: Tensor, classes: Sequence[Sequence[int]], cams: Tensor, attention: Tensor, spec: RefineSpec) -> Tensor:
    """Training's pseudo labels: pixels (B, 3, S, S), classes a list an image, cams (B, C, h, w), attention (B, M, M)
    → labels (B, S, S) int64. Affinity and PAR as enabled, on the whole batch at once; nothing waits for the device."""
    size = (pixels.shape[-2], pixels.shape[-1])
    slots = max(1, *(len(kept) for kept in classes))
    table = torch.tensor([[*kept, *[-1] * (slots - len(kept))] for kept in classes]).to(pixels.device, non_blocking=True)
    empty = (table < 0)[..., None, None]  # a slot that no class fills
    own = cams.gather(1, table.clamp_min(0)[..., None, None].expand(-1, -1, *cams.shape[-2:])).masked_fill(empty, 0)
    if spec.affinity.enabled:
        own = affinity_cams(own, attention, spec.affinity)
    maps = upsample_with_background(own, size, spec.background_power, rescale=spec.affinity.enabled)
    maps[:, 1:].masked_fill_(empty, -1)  # never wins
    if spec.par.enabled:
        maps = pixel_adaptive_refinement(pixels, maps, spec.par)
    names = F.pad(table + 1, (1, 0))
    winner = maps.argmax(dim=1)
    return names.gather(1, winner.flatten(1)).reshape(winner.shape)
