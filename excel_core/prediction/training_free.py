"""CAMs and pseudo labels of single photos without training: a frozen CLIP, its knowledge base, and a run's settings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.producers import SeedCams, learnt_refine_spec, learnt_seeds, seed_cams
from excel_core.cams.pseudo_labels import class_slots, refine_labels
from excel_core.config import RunSpec
from excel_core.config.presets import preset
from excel_core.datasets.images import ImageSource, load_image
from excel_core.errors import SettingError
from excel_core.models.clip import FrozenClip
from excel_core.models.clip_names import ClipSizes, check_settings_fit_clip
from excel_core.models.dino_weights import load_dino
from excel_core.prediction.trained_segmenter import TrainedSegmenter
from excel_core.text.knowledge import KnowledgeBase
from excel_core.text.prompts import class_indices

__all__ = ["PhotoCams", "PhotoLabels", "TrainingFreeModel"]


@dataclass(frozen=True, eq=False)
class PhotoCams:
    """CAMs of one photo.

    image: (H, W, 3) uint8 RGB
    class_names: the K classes that the photo shows
    maps: (K, h, w) float32 in [0, 1], one value per patch
    network_input: (3, S, S) float32, normalised, on the model's device
    attention: (M, M) float32 between the M = h*w patches, on the model's device; the refinement spreads CAMs along it; with
        `cams.window`, (W, m, m) of W windows of m patches
    learnt: whether a trained segmenter had a part in them
    embedding: (D,) float32, unit, on the model's device: the photo as CLIP compares it with texts; None where it is learnt
    """

    image: NDArray[np.uint8]
    class_names: tuple[str, ...]
    maps: NDArray[np.float32]
    network_input: Tensor = field(repr=False)
    attention: Tensor = field(repr=False)
    learnt: bool = False
    embedding: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class PhotoLabels:
    """Label maps of one photo: 0 background, i + 1 class i of the model's `class_names`.

    steps: (H, W) uint8 by step of the refinement, in order: raw, then affinity, par and crf, as far as they are enabled
    """

    class_names: tuple[str, ...]
    steps: dict[str, NDArray[np.uint8]]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(H, W) uint8 after the last step: the pseudo labels."""
        return list(self.steps.values())[-1]


@dataclass(frozen=True, eq=False)
class TrainingFreeModel:
    """CAMs and pseudo labels from image-level classes, as the stages `cams`, `dynamic` and `refine` compute them.

    clip: the frozen CLIP; everything runs on its device
    knowledge: the knowledge base of C classes, made with this CLIP
    settings: those of `cams`, `refine` and `dynamic`, and of what is trained with this model; default: the preset `photos`

    SettingError where the settings do not fit the CLIP: a side that is no multiple of its patch, more blocks than it has.
    """

    clip: FrozenClip = field(repr=False)
    knowledge: KnowledgeBase = field(repr=False)
    settings: RunSpec = field(default_factory=lambda: preset("photos"), repr=False)

    def __post_init__(self) -> None:
        if self.settings.refine.votes.enabled:
            raise SettingError("refine.votes: masks vote on the label maps of a data set; leave it out for single photos")
        named = self.settings.model_copy(update={"clip": self.settings.clip.model_copy(update={"model": self.clip.name})})
        check_settings_fit_clip(named, ClipSizes(self.clip.joint_width, self.clip.patch, len(self.clip.blocks)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """All C classes; label i + 1 is class i."""
        return self.knowledge.class_names

    @cached_property
    def cam_model(self) -> CamModel:
        """The CLIP with the class texts on its device, and the second encoder where the settings name one. ModelError where
        that cannot be loaded."""
        text = self.knowledge.knowledge.text.to(self.clip.device)
        name = self.settings.dino.model
        dino = None if name is None else load_dino(name, str(self.clip.device))
        return CamModel.of(self.clip, text, len(self.class_names), self.settings.cams, dino)

    @torch.inference_mode()
    def cams(
        self, photo: ImageSource, class_names: Sequence[str] | None = None, segmenter: TrainedSegmenter | None = None
    ) -> PhotoCams:
        """CAMs of the classes that a photo shows (eqs. 1, 5, 6); with a trained `segmenter`, under its learnt relation (LVC,
        eqs. 8-10).

        photo: a file, a PIL image, or an array (H, W, 3) uint8 RGB
        class_names: its image-level classes; None: all

        SettingError for an unknown class, ImageError for a photo that cannot be used.
        """
        image = load_image(photo)
        names = self.class_names if class_names is None else tuple(class_names)
        classes = class_indices(names, self.class_names)
        names = tuple(self.class_names[index] for index in classes)
        network_input = self.cam_model.prepare([image])
        slots = class_slots([classes]).to(self.clip.device)
        embedding = None
        if segmenter is None:
            embedded = seed_cams(self.cam_model, network_input, slots, self.settings.refine)
            seeds: SeedCams = embedded
            embedding = embedded.embedding[0]
        else:
            seeds = learnt_seeds(self.cam_model, segmenter.segmenter, network_input, slots, self.settings)
        assert seeds.attention is not None
        maps = seeds.cams[0, : len(classes)].cpu().numpy()
        return PhotoCams(image, names, maps, network_input[0], seeds.attention[0], segmenter is not None, embedding)

    @torch.inference_mode()
    def refine(self, cams: PhotoCams, crf: bool | None = None) -> PhotoLabels:
        """CAMs of this model → label maps: affinity, PAR and CRF, as `settings.refine` enables them.

        crf: False leaves out the CRF, the slowest step, True applies it; None: as the settings say
        """
        spec = learnt_refine_spec(self.settings) if cams.learnt else self.settings.refine
        if crf is not None:
            spec = spec.model_copy(update={"crf": spec.crf.model_copy(update={"enabled": crf})})
        classes = class_indices(cams.class_names, self.class_names)
        maps = torch.from_numpy(cams.maps).to(cams.attention)
        steps = refine_labels(cams.image, cams.network_input, classes, maps, cams.attention, spec)
        return PhotoLabels(self.class_names, steps)
