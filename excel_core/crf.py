"""Dense CRF over label probabilities, by pydensecrf (method 4)."""

import numpy as np
from numpy.typing import NDArray

from excel_core.config import CrfSpec

__all__ = ["dense_crf"]


def dense_crf(image: NDArray[np.uint8], probabilities: NDArray[np.float32], spec: CrfSpec) -> NDArray[np.float32]:
    """image (H, W, 3) uint8 RGB; probabilities (K, H, W), each pixel's labels summing to 1 → refined (K, H, W).

    The unary is -log p; a single label is returned unchanged, since nothing competes with it.
    """
    from pydensecrf import densecrf

    labels, height, width = probabilities.shape
    if labels < 2:
        return probabilities
    crf = densecrf.DenseCRF2D(width, height, labels)
    unary = -np.log(np.clip(probabilities, 1e-5, 1.0)).reshape(labels, -1)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    crf.addPairwiseGaussian(sxy=spec.gaussian_sigma, compat=spec.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=spec.bilateral_sigma,
        srgb=spec.bilateral_colour_sigma,
        rgbim=np.ascontiguousarray(image),
        compat=spec.bilateral_weight,
    )
    refined = crf.inference(spec.iterations)
    return np.asarray(refined, dtype=np.float32).reshape(labels, height, width)
