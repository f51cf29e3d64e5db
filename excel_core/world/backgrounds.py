"""The grounds a scene stands on: seven noisy textures, each a function of position, the same at any size.

Every texture returns HWC float64 in about [0, 255]. Random numbers are drawn in shapes that do not depend on the
size, so that a scene at 64 pixels is the same picture as at 256.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["BACKGROUNDS", "paint_background"]

_UPPER = ("sky", "night", "wall")  # what may stand above a horizon …
_LOWER = ("meadow", "sea", "sand", "snow")  # … and what may lie below it


def _noise(rng: np.random.Generator, size: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Smooth noise (size, size), about N(0, 1): a small random grid resized bicubically."""
    grid = rng.normal(size=(rows, columns)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)


def _axes(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column positions of the pixel centres in [0, 1]: (size, 1) and (1, size)."""
    centre = (np.arange(size) + 0.5) / size
    return centre[:, None], centre[None, :]


def _tint(rng: np.random.Generator, colour: tuple[int, int, int]) -> NDArray[np.float64]:
    tint: NDArray[np.float64] = np.asarray(colour, dtype=np.float64) + rng.normal(0.0, 7.0, size=3)
    return tint


def _meadow(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    tone = 9.0 * _noise(rng, size, 6, 6) + 13.0 * _noise(rng, size, 18, 56)  # patches, and upright blades
    meadow: NDArray[np.float64] = _tint(rng, (134, 184, 92)) + tone[..., None] * np.array([1.0, 1.0, 0.6])
    return meadow


def _sea(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    row, column = _axes(size)
    waves, phase = rng.uniform(7.0, 11.0), rng.uniform(0.0, 6.28)
    # Wave crests across the picture, bent by a slower wave along them.
    crest = np.sin(6.28 * (waves * row + 0.25 * np.sin(6.28 * 3.0 * column + phase)))
    tone = 24.0 * np.maximum(crest, 0.0) ** 2 + 8.0 * _noise(rng, size, 12, 6)
    sea: NDArray[np.float64] = _tint(rng, (36, 116, 158)) + tone[..., None] * np.array([1.0, 1.0, 0.9])
    return sea


def _sky(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    row, _ = _axes(size)
    cloud = np.clip(_noise(rng, size, 5, 4) - 0.45, 0.0, 0.9)[..., None]
    blue = _tint(rng, (150, 198, 236)) + 22.0 * row[..., None]
    return blue + cloud * (np.array([250.0, 250.0, 252.0]) - blue)


def _sand(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    tone = 10.0 * _noise(rng, size, 5, 5) + 12.0 * _noise(rng, size, 60, 60)
    return _tint(rng, (222, 192, 132)) + tone[..., None]


def _night(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    row, column = _axes(size)
    sky = _tint(rng, (22, 24, 62)) + 6.0 * _noise(rng, size, 4, 4)[..., None]
    for y, x, radius in zip(rng.random(36), rng.random(36), rng.uniform(0.005, 0.013, 36), strict=True):
        glow = np.exp(-((row - y) ** 2 + (column - x) ** 2) / (2.0 * radius**2))
        sky = sky + glow[..., None] * (np.array([255.0, 246.0, 200.0]) - sky)
    return sky


def _wall(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    row, column = _axes(size)
    courses = int(rng.integers(9, 14))
    course = np.floor(row * courses).astype(int)
    across = column * courses * 0.5 + 0.5 * (course % 2)  # every second course is shifted by half a brick
    brick = np.floor(across).astype(int)
    joint = (row * courses - course < 0.16) | (across - brick < 0.09)
    shade = rng.normal(0.0, 11.0, size=(16, 16))[course % 16, brick % 16]
    clay = _tint(rng, (172, 98, 78)) + (shade + 5.0 * _noise(rng, size, 30, 30))[..., None]
    return np.where(joint[..., None], np.array([196.0, 184.0, 172.0]), clay)


def _snow(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    tone = 9.0 * _noise(rng, size, 7, 4) + 4.0 * _noise(rng, size, 40, 40)
    snow: NDArray[np.float64] = _tint(rng, (222, 230, 240)) + tone[..., None] * np.array([1.2, 1.1, 0.8])
    return snow


_PAINT: dict[str, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "meadow": _meadow,
    "sea": _sea,
    "sky": _sky,
    "sand": _sand,
    "night": _night,
    "wall": _wall,
    "snow": _snow,
}
BACKGROUNDS: tuple[str, ...] = tuple(_PAINT)


def paint_background(rng: np.random.Generator, size: int) -> tuple[NDArray[np.float64], NDArray[np.uint8], tuple[str, ...]]:
    """Paint one ground, or one above another.

    Returns the picture HWC float64, a map HW uint8 of which ground a pixel belongs to (index into the names), and
    the names from top to bottom.
    """
    if rng.random() < 0.4:
        name = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
        return _PAINT[name](rng, size), np.zeros((size, size), dtype=np.uint8), (name,)
    upper = _UPPER[int(rng.integers(len(_UPPER)))]
    lower = _LOWER[int(rng.integers(len(_LOWER)))]
    row, column = _axes(size)
    # The horizon: a tilted line with a small hill.
    height, slope, hill = rng.uniform(0.35, 0.7), rng.uniform(-0.1, 0.1), rng.uniform(0.0, 0.04)
    edge = height + slope * (column - 0.5) + hill * np.sin(6.28 * column + rng.uniform(0.0, 6.28))
    below = row > edge
    picture = np.where(below[..., None], _PAINT[lower](rng, size), _PAINT[upper](rng, size))
    return picture, below.astype(np.uint8), (upper, lower)
