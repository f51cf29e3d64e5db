"""CLIP-ES's golden arrays: from a photo to its seeds, their refinement, and the labels of its CRF."""

from pathlib import Path

import torch
from torch import Tensor

from excel_core.cams.affinity import (
    affinity_cams,
    affinity_matrix,
    box_masks,
    mean_attention,
    rescaled,
    scale_attention,
    upsampled,
    with_background,
)
from excel_core.cams.cam_model import CamModel
from excel_core.cams.crf import appearance_colours, dense_crf
from excel_core.cams.gradcam_model import gradcam_pass
from excel_core.cams.pseudo_labels import class_slots, crf_scores, crf_steps, label_steps, refine_maps
from excel_core.config.presets import preset
from excel_core.evaluation.parity import Arrays, require_shapes
from excel_core.evaluation.peer_set import PeerSet, image_numbers
from excel_core.models.clip import FrozenClip

__all__ = ["compute_clip_es"]

POWERS = (1, 2)  # of the background: published figures take the better one by the truth


@torch.inference_mode()
def compute_clip_es(golden: Arrays, clip: FrozenClip, folder: Path) -> PeerSet:
    """Every key of clip_es.npz. The CRF starts from the golden saved CAMs, since one that tips a pixel moves its neighbours."""
    path = folder / "clip_es.npz"
    numbers = image_numbers(golden, "image", "clip_es")
    per_image: dict[str, tuple[int | None, ...]] = {"text": (None, clip.joint_width)}
    for n in numbers:
        per_image |= {f"image_{n}": (None, None, 3), f"classes_{n}": (None,), f"saved_cams_{n}": (None, None, None)}
        per_image |= {f"probabilities_{n}": (None,)}
    require_shapes(golden, per_image, path)
    outputs: dict[str, Tensor] = {}
    text = torch.from_numpy(golden["text"])
    for n in numbers:
        photo = _Photo(golden, clip, text, n)
        for key, value in (photo.seeds() | photo.refined() | photo.crf()).items():
            outputs[f"{key}_{n}"] = value
    inputs = {"text", "ids", *(f"{key}_{n}" for n in numbers for key in ("image", "classes"))}
    return PeerSet(outputs, frozenset(inputs))


class _Photo:
    """One image of the set, its seeds computed."""

    def __init__(self, golden: Arrays, clip: FrozenClip, text: Tensor, n: int) -> None:
        self.voc, coco = preset("voc", "clip_es").refine, preset("coco", "clip_es").refine
        self.thresholds = {"box_mask": self.voc.affinity.threshold, "box_mask_coco": coco.affinity.threshold}
        self.image, self.size = golden[f"image_{n}"], golden[f"image_{n}"].shape[:2]
        self.classes = [int(index) for index in golden[f"classes_{n}"]]
        self.saved = torch.from_numpy(golden[f"saved_cams_{n}"])
        background = len(golden[f"probabilities_{n}"]) - len(self.classes)  # prompts, which come after the texts of all classes
        cam_model = CamModel(clip, text, len(text) - background, preset("voc", "clip_es").cams)
        self.network_input = cam_model.prepare([self.image])
        self.passed = gradcam_pass(cam_model, self.network_input, class_slots([self.classes]), self.voc.affinity.layers)
        self.cams = self.passed.gradcam.seeds[0]
        scaled = scale_attention(self.passed.attention, clip.heads, cam_model.spec.calibration, self.voc.affinity)
        self.attention = mean_attention(scaled, self.voc.affinity)[0]

    def seeds(self) -> dict[str, Tensor]:
        """What enters the last block, and GradCAM (peers.md 1.3)."""
        gradcam = self.passed.gradcam
        return {
            "input": self.network_input[0],
            "block11": self.passed.activations.outputs[-1][0],
            "probabilities": gradcam.probabilities[0],
            "activations": gradcam.activations[0],
            "gradcam_weights": gradcam.weights[0],
            "gradcam_raw": gradcam.raw[0],
            "gradcam": self.cams,
            "gradcam_full": upsampled(self.cams, self.size),
        }

    def refined(self) -> dict[str, Tensor]:
        """Boxes, affinity, what is saved, and its labels."""
        spec, boxes = self.voc.affinity, {key: box_masks(self.cams, t) for key, t in self.thresholds.items()}
        refined = affinity_cams(self.cams, self.attention, spec)
        full = upsampled(rescaled(refined, spec.epsilon), self.size)
        return {key: mask.to(torch.uint8) for key, mask in boxes.items()} | {
            "attention": self.attention,
            "masked_affinity": affinity_matrix(self.attention, spec) * boxes["box_mask"].flatten(1)[:, None],
            "caa": refined,
            "caa_full": full,
            "saved_cams": full.half(),
            **{f"labels_power{power}": self._labels(power) for power in POWERS},
        }

    def _labels(self, power: int) -> Tensor:
        spec = self.voc.model_copy(
            update={"background_power": float(power), "crf": self.voc.crf.model_copy(update={"enabled": False})}
        )
        maps = refine_maps(self.image, self.network_input[0], self.cams, self.attention, spec)
        return torch.from_numpy(label_steps(self.image, self.classes, maps, spec)["affinity"])

    def crf(self) -> dict[str, Tensor]:
        """The CRF of the golden saved CAMs. Labels come from the engine of the run, probabilities from the published program's
        own, which a run can choose too: the lattice differs from it by up to 1e-4 where a pixel is undecided."""
        scores = crf_scores(with_background(self.saved, self.voc.background_power), 0, self.voc).numpy()
        colours = appearance_colours(self.image, self.voc.crf)
        exact = self.voc.crf.model_copy(update={"engine": "pydensecrf"})
        labels = crf_steps(self.image, self.classes, scores, self.voc)
        return {
            "crf_image": torch.from_numpy(colours),
            "crf": torch.from_numpy(dense_crf(colours, scores, exact)),
            "labels_crf": torch.from_numpy(labels["crf"]),
            "labels_crf_confident": torch.from_numpy(labels["confident"]),
        }
