"""Training views: random crops of training scenes, and the share of each fact that is left in them.

Scenes are drawn once and kept as uint8. A view is a square crop, resized, mirrored by chance, of which only some
patches are shown to the tiny CLIP; the facts are counted on those patches alone. So its labels are exactly what is
visible, and the class token has to find each thing where it is instead of guessing from its usual company.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.world.captions import Captions
from excel_core.world.scenes import render_scene

__all__ = ["SceneBank", "Views", "draw_views", "fill_bank"]

_MAX_PIECES = 40


@dataclass(frozen=True, eq=False)
class SceneBank:
    """images (n, S, S, 3) uint8; piece_maps (n, S, S) uint8; facts (n, 40, F) bool: the facts of each piece."""

    images: NDArray[np.uint8]
    piece_maps: NDArray[np.uint8]
    facts: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Views:
    """images (B, V, V, 3) uint8; patches (B, K) int64, the sorted numbers of those shown; shares (B, F) float64 in [0, 1] of
    the shown pixels, by fact."""

    images: NDArray[np.uint8]
    patches: NDArray[np.int64]
    shares: NDArray[np.float64]


def fill_bank(seeds: Sequence[int], size: int, captions: Captions) -> SceneBank:
    """Render the scenes `seeds` at `size` pixels."""
    images = np.empty((len(seeds), size, size, 3), dtype=np.uint8)
    piece_maps = np.empty((len(seeds), size, size), dtype=np.uint8)
    facts = np.zeros((len(seeds), _MAX_PIECES, len(captions.facts)), dtype=bool)
    for i, seed in enumerate(seeds):
        scene = render_scene(seed, size)
        images[i], piece_maps[i] = scene.image, scene.piece_map
        facts[i, : len(scene.pieces)] = captions.facts_of(scene.pieces)
    return SceneBank(images, piece_maps, facts)


def draw_views(
    bank: SceneBank, rng: np.random.Generator, count: int, size: int, patch: int, keep: float, zoom: tuple[float, float]
) -> Views:
    """`count` views of size × size pixels; crop sides are `zoom` shares of a scene; `keep` is the share of patches."""
    scene_size, cells = bank.images.shape[1], size // patch
    patches_shown = max(1, round(keep * cells * cells))
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    patches = np.empty((count, patches_shown), dtype=np.int64)
    shares = np.empty((count, bank.facts.shape[2]))
    for row, scene in enumerate(rng.integers(len(bank.images), size=count)):
        side = rng.uniform(*zoom) * scene_size
        left, top = rng.uniform(0.0, scene_size - side, size=2)
        box = (left, top, left + side, top + side)
        picture = Image.fromarray(bank.images[scene]).resize((size, size), Image.Resampling.BILINEAR, box=box)
        piece_map = Image.fromarray(bank.piece_maps[scene]).resize((size, size), Image.Resampling.NEAREST, box=box)
        pixels, pieces = np.asarray(picture), np.asarray(piece_map)
        if rng.random() < 0.5:
            pixels, pieces = pixels[:, ::-1], pieces[:, ::-1]
        # Contrast and brightness change, the facts do not.
        gain, shift = rng.uniform(0.85, 1.15), rng.uniform(-15.0, 15.0)
        images[row] = np.clip(pixels * gain + shift, 0, 255)
        patches[row] = np.sort(rng.permutation(cells * cells)[:patches_shown])
        # (V, V) → (patches, pixels of a patch), so that the facts are counted on the shown patches alone
        by_patch = pieces.reshape(cells, patch, cells, patch).transpose(0, 2, 1, 3).reshape(cells * cells, -1)
        counts = np.bincount(by_patch[patches[row]].ravel(), minlength=_MAX_PIECES)
        shares[row] = (counts / counts.sum()) @ bank.facts[scene]
    return Views(images, patches, shares)
