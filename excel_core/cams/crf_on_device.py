"""The dense CRF of several photos at once, on the device that holds them (method 4)."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from excel_core.cams.crf import MIN_PROBABILITY, dense_crf
from excel_core.config import CrfSpec
from excel_core.kernels.gpu import has_triton

__all__ = ["dense_crf_batch", "runs_on_device"]

MAX_VALUES = 2**27  # pixels x labels at once, the labels at least 32: about 6 GiB of memory
MIN_LABELS = 32  # that a pixel counts as: with fewer, the lattice is what takes memory


def runs_on_device(device: torch.device, spec: CrfSpec) -> bool:
    """Whether the CRF of photos on `device` is computed there: by the lattice in Triton, on a GPU."""
    return spec.engine == "lattice" and has_triton(device)


@torch.inference_mode()
def dense_crf_batch(images: Sequence[Tensor], scores: Sequence[Tensor], spec: CrfSpec) -> list[Tensor]:
    """images (H, W, 3) uint8 RGB, scores (K, H, W) float32 on one device, each pixel's labels summing to 1; sizes and K may
    differ → the refined scores (K, H, W) on the device, each as by `dense_crf` but for the last bits.

    A photo's result does not depend on those beside it. Where the device cannot compute it, the CPU does, photo by photo.
    """
    if not runs_on_device(scores[0].device, spec):
        pairs = ((image.cpu().numpy(), values.float().cpu().numpy()) for image, values in zip(images, scores, strict=True))
        return [torch.from_numpy(dense_crf(*pair, spec)).to(values) for pair, values in zip(pairs, scores, strict=True)]
    active = _active_labels(scores, spec)
    refined = list(scores)
    for group in _groups(active, [values[0].numel() for values in scores]):
        chosen = [scores[i][active[i]] for i in group]
        for i, values in zip(group, _by_lattice([images[i] for i in group], chosen, spec), strict=True):
            refined[i] = torch.zeros_like(scores[i], dtype=torch.float32)
            refined[i][active[i]] = values
    return refined


def _active_labels(scores: Sequence[Tensor], spec: CrfSpec) -> list[Tensor]:
    """The labels of each photo that take part, as in `dense_crf`."""
    highest = torch.cat([values.flatten(1).amax(dim=1) for values in scores]).cpu()  # one wait for the device
    by_photo = torch.split(highest, [len(values) for values in scores])
    bounds = [min(spec.least_probability, max(0.0, float(values.max()))) for values in by_photo]
    chosen = [(values > bound).nonzero().flatten() for values, bound in zip(by_photo, bounds, strict=True)]
    return [labels.to(scores[0].device, non_blocking=True) for labels in chosen]


def _groups(active: Sequence[Tensor], pixels: Sequence[int]) -> Iterator[list[int]]:
    """Photos that go through together: with as many labels after padding, and together within MAX_VALUES. A photo of fewer than
    two active labels is in none: nothing competes."""
    from excel_core.kernels.lattice_triton import padded_labels

    by_shape: dict[tuple[int, int], list[int]] = {}
    for i, labels in enumerate(active):
        if len(labels) > 1:
            by_shape.setdefault(padded_labels(len(labels)), []).append(i)
    for (blocks, lanes), photos in by_shape.items():
        group: list[int] = []
        size = max(MIN_LABELS, blocks * lanes)
        for i in photos:
            if group and size * (pixels[i] + sum(pixels[other] for other in group)) > MAX_VALUES:
                yield group
                group = []
            group.append(i)
        yield group


def _by_lattice(images: Sequence[Tensor], scores: Sequence[Tensor], spec: CrfSpec) -> list[Tensor]:
    """images (H, W, 3) uint8, scores (K, H, W) of their active labels, padded to the same number of blocks."""
    from excel_core.kernels.lattice_triton import build_device_lattice, mean_field_on_device

    device, sizes = scores[0].device, [image.shape[0] * image.shape[1] for image in images]
    photos = torch.repeat_interleave(torch.arange(len(images)), torch.tensor(sizes)).to(device)
    positions = torch.cat([_positions(image) for image in images], dim=1)
    colours = torch.cat([image.reshape(-1, 3).T.float() for image in images], dim=1)
    smoothness = build_device_lattice(positions / spec.gaussian_sigma, photos)
    features = torch.cat([positions / spec.bilateral_sigma, colours / spec.bilateral_colour_sigma])
    appearance = build_device_lattice(features, photos)
    logits = scores[0].new_full((max(map(len, scores)), sum(sizes)), -torch.inf, dtype=torch.float32)
    edges = np.cumsum([0, *sizes])
    for values, first, end in zip(scores, edges, edges[1:], strict=False):
        logits[: len(values), first:end] = values.flatten(1).float().clamp(MIN_PROBABILITY, 1).log()
    terms = [(smoothness, spec.gaussian_weight), (appearance, spec.bilateral_weight)]
    refined = mean_field_on_device(logits, terms, spec.iterations)
    planes = refined.split(sizes, dim=1)
    return [plane[: len(values)].reshape(values.shape) for plane, values in zip(planes, scores, strict=True)]


def _positions(image: Tensor) -> Tensor:
    """x and y (2, H W) float32 of an image's pixels."""
    height, width = image.shape[:2]
    y, x = (torch.arange(side, dtype=torch.float32, device=image.device) for side in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).flatten(1)
