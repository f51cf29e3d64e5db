"""The labels that a batch is trained on: pseudo labels of its own CAMs, static or under the learnt relation (method 5; for
GradCAM peers.md 3.3 and 4.3), or the true ones in the fully supervised mode."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from excel_core.cams.affinity import guided_cams, without_boxes
from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.cams.producers import SeedsOfRelation, encoded_seeds
from excel_core.cams.pseudo_labels import cams_of_slots, refine_slots
from excel_core.config import RefineSpec, TrainSpec
from excel_core.models.calibration import Relation
from excel_core.models.clip import quantised_pixels
from excel_core.training.batches import Batch
from excel_core.training.losses import IGNORE

__all__ = ["Targets", "own_labels"]


@dataclass(frozen=True)
class Targets:
    """A batch after the frozen encoders, and what the trained part says of it, outside the gradient's graph: its relation, and
    its probabilities (B, C+1, h, w) where they multiply seeds."""

    cam_model: CamModel
    encoded: Encoded
    network_input: Tensor
    batch: Batch
    relation: Relation
    guidance: Tensor | None
    spec: TrainSpec
    refine: RefineSpec

    def labels(self, dynamic: bool) -> Tensor:
        """Labels (B, S, S) int64: of static CAMs, or of CAMs and attention under the relation (`dynamic`)."""
        if self.spec.supervision == "masks":
            return self.batch.labels.long()
        cams, attention = self._seeds(self.relation if dynamic else None)
        refine = self.refine
        if self.guidance is not None:
            guidance = cams_of_slots(self.guidance[:, 1:], self.batch.slots)
            cams, refine = guided_cams(cams, guidance, refine.affinity), without_boxes(refine)
        labels = refine_slots(self._colours(), self.batch.slots, cams, attention, refine)
        # Published, by accident: padding is labelled like any other pixel.
        return labels.masked_fill(~self.batch.valid, IGNORE) if self.spec.padding == "ignored" else labels

    @cached_property
    def _seeds(self) -> SeedsOfRelation:
        return encoded_seeds(self.cam_model, self.encoded, self.batch.slots, self.refine)

    def _colours(self) -> Tensor:
        """What guides PAR. Published: ExCEL de-normalises the crop, and truncates it to 8 bits; WeCLIP leaves it normalised."""
        if self.refine.par.image == "normalised":
            return self.network_input
        colours = self.batch.pixels.float()
        if self.refine.par.image == "network_input":
            return quantised_pixels(colours, self.cam_model.spec.normalisation)
        return colours


def own_labels(logits: Tensor, labels: Tensor, slots: Tensor, spec: TrainSpec) -> Tensor:
    """logits (B, C+1, H, W), labels (B, H, W), `class_slots` (B, K) → labels, where the head is confident its own: the label of
    its largest logit, of all or of background and the photo's classes (peers.md 4.4). Ignored pixels stay ignored."""
    probability = torch.softmax(logits, dim=1)
    present_logits = logits
    if spec.own_labels_classes == "image":
        present = torch.zeros(logits.shape[:2], dtype=torch.bool, device=logits.device)
        present.scatter_(1, slots + 1, True)  # an empty slot is background, which every photo has
        present_logits = logits.masked_fill(~present[..., None, None], float("-inf"))
    confident = (probability.amax(dim=1) > spec.own_labels_confidence) & (labels != IGNORE)
    return torch.where(confident, present_logits.argmax(dim=1), labels)
