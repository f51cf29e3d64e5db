"""Label maps as the tests of exports look at them."""

import numpy as np

__all__ = ["counted"]


def counted(labels: np.ndarray) -> np.ndarray:
    """labels (H, W) as formats hold them, which know no ignored pixels."""
    return np.where(labels == 255, 0, labels)
