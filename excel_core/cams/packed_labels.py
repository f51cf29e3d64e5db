"""From CAMs to label maps for many photos of different sizes at once, on a GPU with Triton: the steps of pseudo_labels.py.

Launches are few, whatever the number of photos. What comes back are 8 bits a pixel and step, and a CRF's probabilities where
it does not run there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import affinity_cams, rescaled
from excel_core.cams.crf_on_device import dense_crf_batch, runs_on_device
from excel_core.cams.par import map_slots, refine_packed_pictures
from excel_core.cams.pseudo_labels import crf_scores, crf_source
from excel_core.config import CrfSpec, RefineSpec
from excel_core.host_copies import HostCopy
from excel_core.kernels.gpu import PackedSizes, pack_sizes, packed_pixels

__all__ = ["PackedLabels", "packed_labels", "packs", "runs_of_photos"]

Image = NDArray[np.uint8]
MAX_PIXELS = 2**21  # of photos that are refined together: 400 MB of affinities in float32


@dataclass(frozen=True)
class PackedLabels:
    """Label maps of some photos on their way to the host. labels (steps, pixels) uint8; scores (pixels, K) float32: what the
    CRF takes for probabilities, of background and a photo's classes first, None without a CRF, or where the GPU computed it."""

    steps: tuple[str, ...]
    shapes: list[tuple[int, int]]
    labels: HostCopy
    scores: HostCopy | None

    def of_photo(self, index: int) -> dict[str, NDArray[np.uint8]]:
        """Label maps (H, W) by step; waits until they are there."""
        return {step: labels[self._pixels(index)].reshape(self.shapes[index]) for step, labels in self._by_step()}

    def scores_of_photo(self, index: int, labels: int) -> NDArray[np.float32]:
        """The CRF's probabilities (labels, H, W) of a photo; waits until they are there."""
        assert self.scores is not None
        return np.ascontiguousarray(self.scores.numpy()[self._pixels(index), :labels].T).reshape(labels, *self.shapes[index])

    def _by_step(self) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        return zip(self.steps, self.labels.numpy(), strict=True)

    def _pixels(self, index: int) -> slice:
        before = sum(height * width for height, width in self.shapes[:index])
        height, width = self.shapes[index]
        return slice(before, before + height * width)


def runs_of_photos(images: Sequence[Image]) -> Iterator[slice]:
    """images (H, W, 3) → slices of those that are refined together: as many neighbours as have MAX_PIXELS, at least one."""
    start, pixels = 0, 0
    for index, image in enumerate(images):
        size = image.shape[0] * image.shape[1]
        if index > start and pixels + size > MAX_PIXELS:
            yield slice(start, index)
            start, pixels = index, 0
        pixels += size
    if images:
        yield slice(start, len(images))


def packs(spec: RefineSpec) -> bool:
    """Whether photos can be refined together: the kernels know no 16-bit maps, and no CRF of other colours than the photo's or
    with a limit of confidence."""
    return spec.precision == "fp32" and spec.crf.image == "photo" and spec.crf.confidence is None


def packed_labels(
    images: Sequence[Image],
    network_input: Tensor,
    classes: Sequence[Sequence[int]],
    cams: Tensor,
    attention: Tensor,
    spec: RefineSpec,
) -> PackedLabels:
    """P images (H, W, 3), network input (P, 3, S, S), class indices of each, cams (P, slots, h, w) of its classes and zeros in
    slots that it does not need, attention (P, M, M) → their PackedLabels; as `pseudo_labels.refine_labels`, but for a CRF that
    does not run there."""
    shapes = [(image.shape[0], image.shape[1]) for image in images]
    slots = map_slots(cams.shape[1] + 1)
    small = torch.zeros(len(images), slots + 1, dtype=torch.int32, pin_memory=cams.is_cuda)
    for row, image_classes in zip(small.numpy(), classes, strict=True):
        row[0] = len(image_classes)
        row[2 : 2 + len(image_classes)] = [c + 1 for c in image_classes]
    on_device = small.to(cams.device, non_blocking=True)
    batch = _Batch(pack_sizes(shapes, cams.device), on_device[:, 0].contiguous(), on_device[:, 1:].to(torch.uint8), slots)
    maps = batch.maps(cams, spec.background_power)
    steps = {"raw": batch.labels(maps)}
    before_par = maps
    if spec.affinity.enabled:
        refined = rescaled(affinity_cams(cams, attention, spec.affinity), spec.affinity.epsilon)
        before_par = maps = batch.maps(refined, spec.background_power)
        steps["affinity"] = batch.labels(maps)
    if spec.par.enabled:
        keeps_maps = spec.crf.enabled and crf_source(spec) != "par"
        maps = refine_packed_pictures(
            _colours(images, network_input, batch.sizes, spec), maps.clone() if keeps_maps else maps, batch.sizes, spec.par
        )
        steps["par"] = batch.labels(maps)
    scores = None
    if spec.crf.enabled:
        crf_input = crf_scores(maps if crf_source(spec) == "par" else before_par, 1, spec)
        if runs_on_device(crf_input.device, spec.crf):
            steps["crf"] = batch.crf_labels(images, crf_input, [len(image_classes) + 1 for image_classes in classes], spec.crf)
        else:
            scores = HostCopy(crf_input)
    return PackedLabels(tuple(steps), shapes, HostCopy(torch.stack(list(steps.values()))), scores)


@dataclass(frozen=True)
class _Batch:
    """Sizes of P photos; counts (P,) int32 of their classes; names (P, slots) uint8 of their labels, background first."""

    sizes: PackedSizes
    counts: Tensor
    names: Tensor
    slots: int

    def maps(self, cams: Tensor, power: float) -> Tensor:
        """cams (P, K, h, w) → maps (pixels, slots)."""
        from excel_core.kernels.resize_triton import enlarged_cams

        by_patch = F.pad(cams.permute(0, 2, 3, 1), (1, self.slots - 1 - cams.shape[1]))
        return enlarged_cams(by_patch, self.counts, power, self.sizes)

    def labels(self, maps: Tensor) -> Tensor:
        """maps (pixels, slots) → (pixels,) uint8."""
        from excel_core.kernels.resize_triton import labels_of

        return labels_of(maps, self.names, self.sizes)

    def crf_labels(self, images: Sequence[Image], scores: Tensor, labels: Sequence[int], spec: CrfSpec) -> Tensor:
        """Images (H, W, 3), their `crf_scores` (pixels, slots), how many of them have a meaning → (pixels,) uint8."""
        areas = [image.shape[0] * image.shape[1] for image in images]
        pixels = packed_pixels(images, scores.device).split(areas)
        photos = [part.reshape(image.shape) for part, image in zip(pixels, images, strict=True)]
        packed_scores = zip(scores.split(areas), labels, images, strict=True)
        by_photo = [part[:, :count].T.reshape(count, *image.shape[:2]) for part, count, image in packed_scores]
        winners = [refined.argmax(dim=0).flatten() for refined in dense_crf_batch(photos, by_photo, spec)]
        return torch.cat([names[winner] for names, winner in zip(self.names, winners, strict=True)])


def _colours(images: Sequence[Image], network_input: Tensor, sizes: PackedSizes, spec: RefineSpec) -> Tensor:
    """As `pseudo_labels.par_colours`, packed: (pixels, 4), the last of them 0."""
    from excel_core.kernels.resize_triton import enlarged_colours

    if spec.par.image == "photo":
        return F.pad(packed_pixels(images, network_input.device).float(), (0, 1))
    return enlarged_colours(network_input, sizes)
