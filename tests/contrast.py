"""WCAG's contrast ratio of two colours."""

from collections.abc import Sequence

import numpy as np

__all__ = ["contrast"]


def contrast(a: Sequence[float], b: Sequence[float]) -> float:
    """a, b (3) sRGB in [0, 255] → the ratio in [1, 21]."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Sequence[float]) -> float:
    c = np.array(colour) / 255
    return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))
