"""Scenes of the picture-book world: one to three drawn objects on a noisy ground, with an exact mask.

`render_scene(seed, size)` is a pure function: the same seed gives the same picture everywhere, and another size gives
the same scene with more or fewer pixels. Colours are drawn three times too large and averaged; the mask is the label
layer of that drawing read at pixel centres, so a mask pixel is never a blend.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from excel_core.world.backgrounds import paint_background
from excel_core.world.objects import CLASSES, Stroke, draw_object

__all__ = ["CLASSES", "HELD_OUT_SEEDS", "TRAIN_SEEDS", "Piece", "Scene", "render_scene"]

# The tiny CLIP has only ever seen TRAIN_SEEDS. Each held-out range is one "seed of scenes" of the ablation.
TRAIN_SEEDS = range(0, 100_000)
HELD_OUT_SEEDS = (range(1_000_000, 1_100_000), range(2_000_000, 2_100_000), range(3_000_000, 3_100_000))

_SUPERSAMPLE = 3  # odd, so that a pixel centre is a sample of the large drawing
_TILT = {"fish": 0.5, "kite": 0.6, "rocket": 0.8}  # radians; the others stand on the ground
_MAX_TILT = 0.16


@dataclass(frozen=True)
class Piece:
    """One thing that can be seen or hidden by itself: a part of an object (owner = its class) or a ground ("")."""

    owner: str
    part: str
    colours: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered scene.

    image HWC uint8 RGB; mask HW uint8, 0 background, i + 1 for CLASSES[i]; labels: the classes in the mask, in the
    order of CLASSES; background: names of the grounds from top to bottom; piece_map HW uint8: index into pieces.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    labels: tuple[str, ...]
    background: tuple[str, ...]
    pieces: tuple[Piece, ...]
    piece_map: NDArray[np.uint8]


@dataclass(frozen=True)
class _Placed:
    name: str
    x: float
    y: float
    radius: float


def _place_objects(rng: np.random.Generator) -> list[_Placed]:
    """Names, centres and half-extents in [0, 1]. Objects may hide one another, but never more than about half."""
    placed: list[_Placed] = []
    count = int(rng.integers(1, 4))
    for _ in range(count):
        name = CLASSES[int(rng.integers(len(CLASSES)))]
        radius = rng.uniform(0.17, 0.37) if count < 3 else rng.uniform(0.16, 0.27)
        for _ in range(30):
            x, y = rng.uniform(0.8 * radius, 1.0 - 0.8 * radius, size=2)
            # Far enough from what stands there already; after 30 misses the object is left out.
            if all(np.hypot(x - p.x, y - p.y) > 0.5 * (radius + p.radius) + 0.45 * p.radius for p in placed):
                placed.append(_Placed(name, float(x), float(y), float(radius)))
                break
    return placed


def _pose(rng: np.random.Generator, placed: _Placed, strokes: tuple[Stroke, ...]) -> list[NDArray[np.float64]]:
    """Points of the strokes in the scene's [0, 1]²: stretched, mirrored by chance, tilted and moved."""
    stretch = np.exp(rng.uniform(-0.14, 0.14))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    tilt = rng.uniform(-1.0, 1.0) * _TILT.get(placed.name, _MAX_TILT)
    cos, sin = np.cos(tilt), np.sin(tilt)
    turn = np.array([[cos, sin], [-sin, cos]])
    scale = np.array([mirror * stretch, 1.0 / stretch]) * placed.radius
    return [(s.points * scale) @ turn + np.array([placed.x, placed.y]) for s in strokes]


def _pieces_of(name: str, strokes: tuple[Stroke, ...]) -> list[Piece]:
    """The parts of one object, in drawing order, each with every colour it has."""
    colours: dict[str, list[str]] = {}
    for stroke in strokes:
        of_part = colours.setdefault(stroke.part, [])
        if stroke.colour not in of_part:
            of_part.append(stroke.colour)
    return [Piece(name, part, tuple(names)) for part, names in colours.items()]


def render_scene(seed: int, size: int) -> Scene:
    """Draw scene number `seed` at `size` × `size` pixels. Deterministic in both; see Scene for the layout."""
    rng = np.random.default_rng(seed)
    ground_rng, object_rng, grain_rng = rng.spawn(3)  # apart, so that the size of one draw never shifts another
    ground, ground_map, names = paint_background(ground_rng, size)
    pieces = [Piece("", name, ()) for name in names]
    large = np.repeat(np.repeat(np.clip(ground, 0, 255).astype(np.uint8), _SUPERSAMPLE, 0), _SUPERSAMPLE, 1)
    picture = Image.fromarray(large)
    layer = Image.fromarray(np.repeat(np.repeat(ground_map, _SUPERSAMPLE, 0), _SUPERSAMPLE, 1))
    draw, draw_layer = ImageDraw.Draw(picture), ImageDraw.Draw(layer)
    for placed in _place_objects(object_rng):
        strokes = draw_object(placed.name, object_rng)
        first = len(pieces)
        pieces += _pieces_of(placed.name, strokes)
        index = {piece.part: first + i for i, piece in enumerate(pieces[first:])}
        for stroke, points in zip(strokes, _pose(object_rng, placed, strokes), strict=True):
            # Pillow's coordinates are of pixel centres, hence the half.
            path = [(float(x), float(y)) for x, y in points * size * _SUPERSAMPLE - 0.5]
            draw.polygon(path, fill=stroke.rgb)
            draw_layer.polygon(path, fill=index[stroke.part])
    # The middle sample of each pixel's 3 x 3: labels are never averaged.
    piece_map = np.asarray(layer)[_SUPERSAMPLE // 2 :: _SUPERSAMPLE, _SUPERSAMPLE // 2 :: _SUPERSAMPLE].copy()
    image = np.asarray(picture.reduce(_SUPERSAMPLE), dtype=np.float64)
    # Light that changes from top to bottom, and grain over everything.
    light = 1.0 + ground_rng.uniform(-0.1, 0.1) * np.linspace(-1.0, 1.0, size)[:, None, None]
    image = image * light + grain_rng.normal(0.0, 5.0, size=(size, size, 1))
    class_of_piece = np.array([CLASSES.index(p.owner) + 1 if p.owner else 0 for p in pieces], dtype=np.uint8)
    mask = class_of_piece[piece_map]
    labels = tuple(name for i, name in enumerate(CLASSES) if (mask == i + 1).any())
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), mask, labels, names, tuple(pieces), piece_map)
