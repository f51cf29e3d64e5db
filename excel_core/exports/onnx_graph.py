"""The trained segmenter as one ONNX graph, from pixels to labels, checked against PyTorch in onnxruntime before it is kept.

    image   (B, 3, H, W) float32   RGB in [0, 1], the resized photo; its normalisation is inside the graph
    logits  (B, C+1, H/p, W/p) float32   background first, on the grid of patches of p pixels
    labels  (B, H, W) uint8   the argmax of the logits after bilinear upsampling: ready to use at H x W

B is any, H and W are multiples of p. excel resizes a photo to S x S (`preprocessing`), resizes `logits` bilinearly (half-pixel
centres) to the photo's size and takes the argmax: with H = W = S that is its single scale. Other sizes, such as the photo's own
shape, are for the user to judge. Resizing `labels` by nearest value is simpler and a little coarser at edges. The model's
metadata hold `class_names` (in label order, background first), and `preprocessing` and `sizes` as JSON.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from excel_core.errors import ModelError, SettingError
from excel_core.files import written_then_renamed
from excel_core.models.clip import as_pixels, normalise_pixels, resize_pixels
from excel_core.prediction.trained_segmenter import TrainedSegmenter

__all__ = ["ONNX_FORMAT", "TOLERANCE", "OnnxCheck", "compare_onnx", "write_onnx"]

ONNX_FORMAT = "excel-segmenter-onnx/1"
TOLERANCE = 1e-3  # greatest absolute difference of a logit; float32 in another order of summation makes about 1e-5
RANDOM_IMAGES = 3  # in the check, as one batch, and one of another shape; each photo it is given is a batch of one
SIDES = (2, 256)  # in patches, of an image's height and width
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class OnnxCheck:
    """ONNX against PyTorch on `images` images: greatest absolute difference of a logit, share of equal labels in [0, 1]."""

    images: int
    difference: float
    equal: float


def write_onnx(path: Path, trained: TrainedSegmenter, photos: Sequence[Image] = ()) -> OnnxCheck:
    """Write the graph of `trained`, which must be on the CPU, once it has passed the check on random images and `photos`
    (H, W, 3) uint8. ModelError, and no file, where a logit differs by more than TOLERANCE or the graph cannot be made."""
    if trained.predict_spec.protocol != "square" or trained.cam_model.dino is not None:
        raise ModelError(
            f"{path.name}: ONNX holds one encoder that looks at a square, and this segmenter looks at the photo's own shape; "
            "export --format safetensors"
        )
    onnx = _required("onnx")
    graph = _Graph(trained).eval()
    size = graph.size
    with written_then_renamed(path) as temporary:
        _export(graph, temporary)
        model = onnx.load(temporary)
        _remove_source_locations(model.graph)
        onnx.helper.set_model_props(model, _metadata(trained))
        onnx.save(model, temporary)
        noise = torch.rand(RANDOM_IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
        smooth, patch = trained.cam_model.spec.antialias, graph.patch
        wide = torch.rand(1, 3, size, size + 3 * patch, generator=torch.Generator().manual_seed(1))
        batches = [noise, wide, *(resize_pixels(as_pixels(photo, noise.device), size, smooth) for photo in photos)]
        check = compare_onnx(temporary, graph, batches)
        if not check.difference <= TOLERANCE:  # nor a NaN
            raise ModelError(
                f"{path.name}: ONNX and PyTorch differ by {check.difference:.2e} in a logit, more than {TOLERANCE:.0e}, and in "
                f"{1 - check.equal:.2%} of the labels of {check.images} images; the file was not kept"
            )
    return check


def compare_onnx(path: Path, reference: nn.Module, batches: Sequence[Tensor]) -> OnnxCheck:
    """Run each batch (B, 3, H, W) through the file and `reference`, which returns (logits, labels)."""
    runtime = _required("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone, no warnings
    session = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    differences, equal = [], []
    for batch in batches:
        with torch.inference_mode():
            logits, labels = (tensor.numpy() for tensor in reference(batch))
        onnx_logits, onnx_labels = session.run(["logits", "labels"], {"image": batch.numpy()})
        differences.append(float(np.abs(onnx_logits - logits).max()))
        equal.append((onnx_labels == labels).mean(axis=(1, 2)))  # by image
    shares = np.concatenate(equal)
    return OnnxCheck(len(shares), float(np.max(differences)), float(shares.mean()))


class _Graph(nn.Module):
    """`TrainedSegmenter.segment` at one scale, by the same functions: image (B, 3, H, W) in [0, 1] → logits, labels."""

    def __init__(self, trained: TrainedSegmenter) -> None:
        super().__init__()
        self.visual = trained.cam_model.clip.visual  # registered, so that its weights become the graph's
        self.segmenter = trained.segmenter
        self.cam_model = trained.cam_model
        self.size, self.patch = trained.cam_model.spec.image_size, trained.cam_model.clip.patch

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.cam_model.encode(normalise_pixels(image, self.cam_model.spec.normalisation))
        logits = self.segmenter(self.cam_model.layers(encoded), encoded.activations.grid).logits
        full = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return logits, full.argmax(dim=1).to(torch.uint8)


def _export(graph: _Graph, path: Path) -> None:
    _required("onnxscript")
    # Two images, not square: the exporter takes a batch of one for a constant, and equal sides for one size.
    example = torch.rand(2, 3, graph.size, graph.size + graph.patch)
    batch, (rows, columns) = (
        torch.export.Dim("batch"),
        (torch.export.Dim(n, min=SIDES[0], max=SIDES[1]) for n in ("rows", "columns")),
    )
    with _no_fused_attention(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=["image"],
            output_names=["logits", "labels"],
            dynamic_shapes={"image": {0: batch, 2: graph.patch * rows, 3: graph.patch * columns}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(path, external_data=False)


def _remove_source_locations(graph: Any) -> None:
    """The exporter notes at every node which line of which file it came from: folders of the machine it ran on."""
    for element in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output, graph):
        del element.metadata_props[:]


@contextmanager
def _no_fused_attention() -> Iterator[None]:
    """PyTorch's fused operation of a whole MultiheadAttention has no counterpart in ONNX; its parts have."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _metadata(trained: TrainedSegmenter) -> dict[str, str]:
    size, patch = trained.cam_model.spec.image_size, trained.cam_model.clip.patch
    smoothing = "with antialiasing" if trained.cam_model.spec.antialias else "no antialiasing"
    preprocessing = {
        "colours": "RGB",
        "range": [0, 1],
        "height": size,
        "width": size,
        "resize": f"bilinear, half-pixel centres, {smoothing}, in float, aspect not kept",
        "normalisation": "inside the graph",
    }
    return {
        "format": ONNX_FORMAT,
        "class_names": json.dumps(["background", *trained.class_names], ensure_ascii=False),
        "preprocessing": json.dumps(preprocessing),
        "sizes": json.dumps({"multiple_of": patch, "at_least": SIDES[0] * patch, "at_most": SIDES[1] * patch}),
        "supervision": trained.supervision,
        "logits": f"on patches of {patch} pixels; resize bilinearly to the photo's size, then argmax",
        "labels": "uint8 at the input's size",
    }


def _required(name: str) -> Any:
    """The module `name` of the optional extra `export`."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise SettingError(f"ONNX needs {name}, which is not installed: pip install 'excel-wsss[export]'") from None
