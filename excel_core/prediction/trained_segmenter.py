"""The trained segmenter as one file that runs alone: no open_clip download, no text tower, no store, no pickle.

NAME.safetensors     excel-segmenter/1
    tensors          `encoder.*` the CLIP's vision tower, `segmenter.*` neck and head, `second.*` a second encoder; float32
    metadata         JSON texts: `class_names` in order (label i + 1; 0 is background), `encoder` (its name and what
                     open_clip builds it from), `segmenter` (SegmenterSpec), `input` (side S, pixel statistics,
                     calibration, patch and patch grid), `predict` (scales and flips), `crf`, `supervision` (labels, or
                     masks: fully supervised), `second` (name and heads of a DINO), and `digest` over all of it

A file of a version before `antialias` is read as that version resized photos (config/base.py). Over several scales it
segments as every other file: scales are made from the photo and weigh the same. That version made them from the S x S image
and gave every view the same weight.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.crf_on_device import dense_crf_batch
from excel_core.cams.crf_tiles import crf_labels
from excel_core.config import CamSpec, CrfSpec, PredictSpec, RunSpec, SegmenterSpec, Spec
from excel_core.config.base import upgrade_cam_fields, upgrade_predict_fields
from excel_core.datasets.images import ImageSource, load_image
from excel_core.disk_maps import is_large
from excel_core.errors import ModelError
from excel_core.files import written_then_renamed
from excel_core.models.clip_weights import vision_clip
from excel_core.models.dino_weights import dino_from_state
from excel_core.models.segmenter import Segmenter
from excel_core.models.weight_files import require_weights
from excel_core.prediction.inference import segment_multi_scale, segment_single_scale
from excel_core.prediction.large_photos import enlarged_planes, highest_plane, logit_planes, maps_of, probabilities
from excel_core.prediction.longest_side import photo_logits, segment_longest_side
from excel_core.text.prompts import class_indices
from excel_core.training.loop import LossRow

__all__ = ["PORTABLE_FORMAT", "TrainedSegmenter", "load_portable", "save_portable"]

PORTABLE_FORMAT = "excel-segmenter/1"
INPUT_FIELDS = {"image_size", "antialias", "normalisation", "calibration", "producer"}
Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class TrainedSegmenter:
    """Neck and head with their CLIP. `cam_model.spec.image_size` is the side S at scale 1.0. `supervision`: what they were
    trained on: image-level labels or, for a fully supervised counterpart, true masks. `losses`: of each iteration, where they
    were trained just now."""

    class_names: tuple[str, ...]
    cam_model: CamModel = field(repr=False)
    segmenter: Segmenter = field(repr=False)
    spec: SegmenterSpec
    predict_spec: PredictSpec
    crf: CrfSpec
    supervision: Literal["labels", "masks"] = "labels"
    losses: tuple[LossRow, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        cam_model: CamModel,
        segmenter: Segmenter,
        class_names: Sequence[str],
        run: RunSpec,
        losses: tuple[LossRow, ...] = (),
    ) -> "TrainedSegmenter":
        """What `run` trained behind `cam_model`, which then looks at photos of `predict.image_size`."""
        cam_model = replace(cam_model, spec=cam_model.spec.model_copy(update={"image_size": run.predict.image_size}))
        train, crf = run.train, run.refine.crf
        return cls(tuple(class_names), cam_model, segmenter, train.segmenter, run.predict, crf, train.supervision, losses)

    def predict(
        self, photo: ImageSource, class_names: Sequence[str] | None = None, multi_scale: bool = False, crf: bool = False
    ) -> Labels:
        """A photo → labels (H, W) uint8: 0 background, i + 1 class i of the segmenter's.

        photo: a file, a PIL image, or an array (H, W, 3) uint8 RGB
        class_names: each pixel goes to background or the strongest of these classes; None: of all
        multi_scale: the mean of logits over scales and flips, as published, in place of one look
        crf: then the dense CRF

        SettingError for an unknown class, ImageError for a photo that cannot be used.
        """
        return list(self.label_steps(load_image(photo), class_names, multi_scale, crf).values())[-1]

    @torch.inference_mode()
    def label_steps(
        self,
        image: Image,
        class_names: Sequence[str] | None = None,
        multi_scale: bool = False,
        crf: bool = False,
        folder: Path | None = None,
    ) -> dict[str, Labels]:
        """image (H, W, 3) uint8 → labels (H, W) as `predict` by step: segmenter, then crf where it is asked for. `folder`: of
        temporary files of a large photo."""
        classes = range(len(self.class_names)) if class_names is None else class_indices(class_names, self.class_names)
        channels = [0, *(index + 1 for index in classes)]
        label_values = np.array(channels, dtype=np.uint8)
        if is_large(image.shape):
            indices = self._large_label_steps(image, channels, multi_scale, crf, folder)
            return {step: label_values[index] for step, index in indices}
        logits = self.segment(image, multi_scale)[channels]
        steps = {"segmenter": label_values[logits.argmax(dim=0).cpu().numpy()]}
        if crf:
            steps["crf"] = label_values[self.refine(image, logits).argmax(axis=0)]
        return steps

    def _large_label_steps(
        self, image: Image, channels: Sequence[int], multi_scale: bool, crf: bool, folder: Path | None
    ) -> Iterator[tuple[str, Labels]]:
        """Of each step, which of `channels` a pixel has."""
        size = (image.shape[0], image.shape[1])
        if self.predict_spec.protocol == "square":
            spec = self.predict_spec if multi_scale else None
            planes = logit_planes(self.cam_model, self.segmenter, image, channels, spec, folder)
        else:
            logits_on_grid = photo_logits(self.cam_model, self.segmenter, image, self.predict_spec, multi_scale)
            planes = enlarged_planes(logits_on_grid, channels, size)
        if not crf:
            yield "segmenter", highest_plane(planes, size, folder)
            return
        logits = maps_of(planes, len(channels), size, folder)
        yield "segmenter", logits.highest()
        yield "crf", crf_labels(image, probabilities(logits), self.crf)

    def segment(self, image: Image, multi_scale: bool = False) -> Tensor:
        """image (H, W, 3) uint8 RGB → logits (C+1, H, W), background first; at `predict_spec`'s scales and flips, or at one.
        All classes at once: 4 bytes a pixel, class and scale."""
        return self.segment_together([image], multi_scale)[0]

    @torch.inference_mode()
    def segment_together(self, images: Sequence[Image], multi_scale: bool = False) -> list[Tensor]:
        """As `segment`, of several images in one pass through the encoder, where the protocol makes them of one size."""
        if self.predict_spec.protocol != "square":
            return segment_longest_side(self.cam_model, self.segmenter, images, self.predict_spec, multi_scale)
        if multi_scale:
            return segment_multi_scale(self.cam_model, self.segmenter, images, self.predict_spec)
        return segment_single_scale(self.cam_model, self.segmenter, images)

    def refine(self, image: Image, logits: Tensor) -> NDArray[np.float32]:
        """image (H, W, 3), its logits (K, H, W) → probabilities (K, H, W) after the dense CRF."""
        (refined,) = self.refine_together([image], [logits])
        return refined.cpu().numpy()

    @torch.inference_mode()
    def refine_together(self, images: Sequence[Image], logits: Sequence[Tensor]) -> list[Tensor]:
        """As `refine`, of several images at once, on the logits' device."""
        device = logits[0].device
        pixels = [torch.from_numpy(image).to(device, non_blocking=True) for image in images]
        return dense_crf_batch(pixels, [torch.softmax(values, dim=0) for values in logits], self.crf)


def save_portable(path: Path, trained: TrainedSegmenter) -> None:
    """Write `trained` to `path`, completely or not at all; ModelError for a CLIP whose description is not known."""
    from safetensors.torch import save

    clip, spec = trained.cam_model.clip, trained.cam_model.spec
    if clip.config is None:
        raise ModelError(f"{clip.name}: the description of its vision tower is not known; load it by `MODEL:FILE`")
    side = spec.image_size // clip.patch
    fields = {
        "class_names": list(trained.class_names),
        "encoder": {"name": _public_name(clip.name), **clip.config},
        "segmenter": trained.spec.model_dump(mode="json", exclude=_if_default(trained.spec, "blocks")),
        "input": {
            **spec.model_dump(mode="json", include=INPUT_FIELDS, exclude=_if_default(spec, "producer")),
            "patch": clip.patch,
            "grid": [side, side],
        },
        "predict": trained.predict_spec.model_dump(
            mode="json",
            include={"protocol", "image_size", "scales", "sides", "flip", "average_at"},
            exclude=_if_default(trained.predict_spec, "protocol") and {"protocol", "image_size"},
        ),
        "crf": trained.crf.model_dump(mode="json"),
        "supervision": trained.supervision,
    }
    states = {"encoder": clip.visual.state_dict(), "segmenter": trained.segmenter.state_dict()}
    if (dino := trained.cam_model.dino) is not None:
        fields["second"] = {"name": _public_name(dino.name), "heads": dino.heads}
        states["second"] = dino.state_dict()
    tensors = {f"{part}.{key}": value.detach().cpu().contiguous() for part in states for key, value in states[part].items()}
    metadata = {"format": PORTABLE_FORMAT, **{key: json.dumps(value, ensure_ascii=False) for key, value in fields.items()}}
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={**metadata, "digest": _digest(tensors, metadata)}))


def _if_default(spec: Spec, field: str) -> set[str]:
    """The field where it has its default value: versions before it read such files."""
    return {field} if getattr(spec, field) == type(spec).model_fields[field].default else set()


def load_portable(path: Path, device: str = "cpu") -> TrainedSegmenter:
    """Read what `save_portable` wrote onto `device`; ModelError for a damaged or foreign file."""
    metadata, tensors = _read(path)
    try:
        fields = {key: json.loads(text) for key, text in metadata.items() if key not in ("format", "digest")}
        spec, names = SegmenterSpec.model_validate(fields["segmenter"]), tuple(fields["class_names"])
        input_fields = {key: value for key, value in fields["input"].items() if key not in ("patch", "grid")}
        cam_fields = upgrade_cam_fields(input_fields)
        encoder = {key: fields["encoder"][key] for key in ("embed_dim", "vision_cfg", "quick_gelu")}
        clip = vision_clip(encoder, _part(tensors, "encoder"), fields["encoder"]["name"])
        clip.model.to(device)
        dino = None
        if second := fields.get("second"):
            dino = dino_from_state(_part(tensors, "second"), second["heads"], second["name"]).to(device)
        segmenter = Segmenter(len(clip.blocks), clip.width, len(names), spec, None if dino is None else dino.width)
        segmenter.load_state_dict(_part(tensors, "segmenter"))
        texts = torch.empty(0, clip.joint_width, device=clip.device)  # it segments; CAMs need a CLIP with its texts
        cam_model = CamModel(clip, texts, len(names), CamSpec.model_validate(cam_fields), dino)
        predict = PredictSpec.model_validate(upgrade_predict_fields(fields["predict"]))
        crf = CrfSpec.model_validate(fields["crf"])
        supervision = fields.get("supervision", "labels")
        return TrainedSegmenter(names, cam_model, segmenter.eval().to(device), spec, predict, crf, supervision)
    except (KeyError, TypeError, ValueError, RuntimeError, ValidationError) as error:
        raise ModelError(f"{path}: its metadata and tensors do not fit each other ({error}); export it again") from None


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a whole file of this format."""
    from safetensors import safe_open

    if not path.is_file():
        raise ModelError(f"{path}: there is no such file; write it with `excel export RUN --format safetensors`")
    require_weights(path, "write one with `excel export RUN --format safetensors`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict
    except Exception as error:  # safetensors has an error of its own for each kind of damage
        raise ModelError(f"{path}: not readable as safetensors ({error}); export it again") from None
    if metadata.get("format") != PORTABLE_FORMAT:
        actual = metadata.get("format") or ("a run's own weights" if "architecture" in metadata else "none")
        raise ModelError(
            f"{path}: format must be {PORTABLE_FORMAT}, got {actual}; write one with `excel export RUN --format safetensors`"
        )
    # safetensors has no checksum of its own: a flipped bit in a weight would go unnoticed.
    digest = metadata.pop("digest", "")
    if digest != _digest(tensors, metadata):
        raise ModelError(f"{path}: damaged: its bytes are not those that were written; copy or export it again")
    return metadata, tensors


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 over metadata and tensors, each with its name, type and shape."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}


def _public_name(name: str) -> str:
    """`MODEL:/home/me/FILE` → `MODEL:FILE`: a file that is given away names no folder of its writer."""
    model, separator, weights = name.partition(":")
    return f"{model}{separator}{Path(weights).name}"
