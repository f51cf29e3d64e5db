"""Dense CRF over label probabilities (method 4), computed by the compiled lattice in kernels/ or by pydensecrf."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.config import CrfSpec
from excel_core.kernels.compiled import has_loops
from excel_core.kernels.lattice import Lattice, build_lattice
from excel_core.kernels.mean_field import mean_field

__all__ = ["appearance_colours", "dense_crf"]

Floats = NDArray[np.float32]
# Of blue, green and red, as CLIP-ES subtracts it from the image that its CRF sees.
MEAN_COLOUR = np.array([104.008, 116.669, 122.675])
MIN_PROBABILITY = 1e-5  # of the unary, as published: below it all labels are equally unlikely


def dense_crf(image: NDArray[np.uint8], probabilities: NDArray[np.floating[Any]], spec: CrfSpec) -> Floats:
    """image (H, W, 3) uint8 RGB; probabilities (K, H, W) float32 or float16, a pixel's labels summing to 1 → refined (K, H, W).

    The unary is -log p, in the type of the probabilities. Labels that nowhere exceed `spec.least_probability` are not active:
    they are refined to 0. A single active label is returned unchanged, since nothing competes with it. Both engines give the
    same but for the last bits; the lattice runs without Python's lock, so that several threads refine an image each.
    """
    highest = probabilities.reshape(len(probabilities), -1).max(axis=1, initial=0)
    # Time goes with the number of labels, and most of a segmentation's are nowhere (docs/bench/active_labels.json).
    active = np.flatnonzero(highest > min(spec.least_probability, highest.max()))
    if len(active) < 2:
        return probabilities.astype(np.float32, copy=False)
    unary = np.clip(probabilities[active], MIN_PROBABILITY, 1.0)
    np.negative(np.log(unary, out=unary), out=unary)
    infer = _by_lattice if spec.engine == "lattice" and has_loops() else _by_pydensecrf
    refined = np.zeros_like(probabilities, dtype=np.float32)
    refined[active] = infer(image, unary.astype(np.float32, copy=False), spec)
    return refined


def appearance_colours(image: NDArray[np.uint8], spec: CrfSpec) -> NDArray[np.uint8]:
    """image (H, W, 3) uint8 RGB → the colours that the appearance term of a CAM seed's CRF compares: the photo's own, or, as
    CLIP-ES publishes it, blue first, minus a mean colour, truncated toward zero and taken modulo 256."""
    if spec.image == "photo":
        return image
    truncated: NDArray[np.int64] = (image[..., ::-1] - MEAN_COLOUR).astype(np.int64)
    return truncated.astype(np.uint8)


def _by_lattice(image: NDArray[np.uint8], unary: Floats, spec: CrfSpec) -> Floats:
    """unary (K, H, W) → probabilities (K, H, W). Pixels lie column by column in memory, for then the lattice of positions goes
    through them in their order (kernels/loops/loops.h)."""
    _, height, width = unary.shape
    x, y = np.mgrid[:width, :height].astype(np.float32) / spec.bilateral_sigma
    colours = image.transpose(2, 1, 0).reshape(3, -1).astype(np.float32) / spec.bilateral_colour_sigma
    appearance = build_lattice(np.concatenate([x.reshape(1, -1), y.reshape(1, -1), colours]))
    smoothness = _position_lattice(height, width, spec.gaussian_sigma)
    terms = [(smoothness, spec.gaussian_weight), (appearance, spec.bilateral_weight)]
    return mean_field(unary, terms, spec.iterations)


@lru_cache(maxsize=16)
def _position_lattice(height: int, width: int, sigma: float) -> Lattice:
    """The lattice of positions, shared by images of one size: a data set has a few common sizes. About 50 bytes per pixel."""
    x, y = np.mgrid[:width, :height].astype(np.float32) / sigma
    return build_lattice(np.stack([x.ravel(), y.ravel()]))


def _by_pydensecrf(image: NDArray[np.uint8], unary: Floats, spec: CrfSpec) -> Floats:
    """unary (K, H, W) → probabilities (K, H, W)."""
    from pydensecrf import densecrf

    crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary).reshape(len(unary), -1))
    crf.addPairwiseGaussian(sxy=spec.gaussian_sigma, compat=spec.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=spec.bilateral_sigma,
        srgb=spec.bilateral_colour_sigma,
        rgbim=np.array(image, order="C"),  # a copy, for pydensecrf refuses read-only arrays
        compat=spec.bilateral_weight,
    )
    return np.asarray(crf.inference(spec.iterations), dtype=np.float32).reshape(unary.shape)
