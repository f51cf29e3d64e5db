"""The golden weights and crops of WeCLIP and WeCLIP+ as models and batches of excel (peers.md 8)."""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from excel_core.cams.affinity import kept_layers
from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.config import RunSpec, SegmenterSpec
from excel_core.evaluation.parity import Arrays
from excel_core.models.clip import FrozenClip, normalise_pixels
from excel_core.models.dino import FrozenDino
from excel_core.models.published_names import HEAD, NECK, PUBLISHED_HEADS, State, published_name, require_names
from excel_core.models.segmenter import Segmentation, Segmenter
from excel_core.training.batches import Batch
from excel_core.training.samples import plain_sample

__all__ = ["Model", "forward", "golden_batch", "golden_model"]


@dataclass(frozen=True)
class Model:
    """The golden weights under a run: a CAM model, and a segmenter without dropout in training mode."""

    run: RunSpec
    cam_model: CamModel
    segmenter: Segmenter

    def copy(self) -> Segmenter:
        """The segmenter, to be trained without a trace."""
        return deepcopy(self.segmenter)


def golden_model(run: RunSpec, clip: FrozenClip, text: Tensor, classes: int, head: State, dino: FrozenDino | None) -> Model:
    """Text (C+Z, D), a published neck and head under their names → Model. ModelError for names that do not fit."""
    layers = {key.split(".")[3] for key in head if key.startswith(f"{HEAD}transformer.resblocks.")}
    spec = SegmenterSpec(
        width=len(head[f"{NECK}linear_fuse.bias"]),
        layers=len(layers),
        heads=PUBLISHED_HEADS,
        dropout=0,
        blocks=run.train.segmenter.blocks,
    )
    segmenter = Segmenter(len(clip.blocks), clip.width, classes, spec, None if dino is None else dino.width)
    names = {key: published_name(key) for key in segmenter.state_dict()}
    require_names(list(names.values()), list(head), "the golden head")
    segmenter.load_state_dict({key: head[name] for key, name in names.items()})
    run = run.model_copy(update={"train": run.train.model_copy(update={"segmenter": spec})})
    return Model(run, CamModel(clip, text, classes, run.cams, dino), segmenter.train())


def golden_batch(golden: Arrays) -> Batch:
    """The golden crops (B, S, S, 3) with their classes."""
    crops = torch.from_numpy(golden["crop"]).permute(0, 3, 1, 2)
    return Batch.of([plain_sample(crop, golden[f"classes_{i}"].tolist()) for i, crop in enumerate(crops)])


def forward(model: Model, batch: Batch) -> tuple[Tensor, Encoded, Segmentation]:
    """Network input (B, 3, S, S), the frozen encoders, and the trained part, as a training step computes them."""
    cam_model, refine = model.cam_model, model.run.refine
    with torch.no_grad():
        network_input = normalise_pixels(batch.pixels.float() / 255, cam_model.spec.normalisation)
        encoded = cam_model.encode(network_input, kept_layers(refine.affinity), last_block=False)
        features = cam_model.segmenter_input(encoded)
    output: Segmentation = model.segmenter(*features)
    return network_input, encoded, output
