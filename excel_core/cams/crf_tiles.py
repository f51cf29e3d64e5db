"""The dense CRF of a large photo, to the same labels as crf.py, tile by tile over probabilities on disk (method 4).

A filter on the lattice reaches a few sigmas and no further. So a tile with that margin has, in its middle, the very lattice of
the whole photo, and each mean-field step of all tiles is that of the photo. Lattices are built anew in each step: those of all
tiles together are what memory has no room for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from excel_core.cams.crf import MIN_PROBABILITY
from excel_core.config import CrfSpec
from excel_core.disk_maps import MAX_BYTES_AT_ONCE, DiskMaps, Tile, strips, tile_around, tiles
from excel_core.errors import ImageError
from excel_core.kernels.lattice import Lattice, plain_lattice
from excel_core.kernels.mean_field import softmax

__all__ = ["crf_labels", "crf_labels_with_confidence"]

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]
MAX_SIDE, MIN_SIDE = 1024, 64  # of a tile, without its margin
MAX_LANES = 4  # labels that are filtered side by side
# Bytes per pixel and per corner of a lattice of five features: when its table of corners grows, and when pixels are grouped.
AT_WORK = ((100, 112), (124, 60))


@dataclass(frozen=True)
class _Term:
    """A Gaussian of the CRF over positions and, with a colour sigma, colours of `image` (H, W, 3) uint8."""

    image: NDArray[np.uint8]
    sigma: float
    colour_sigma: float | None
    weight: float
    mass: DiskMaps  # (1, H, W): the picture of ones, filtered by lattices that are not normalised

    @property
    def margin(self) -> tuple[int, int]:
        """Rows above and below, columns beside a pixel that its filtered value may depend on, and two for rounding.

        A pixel lies within a simplex of its corners, and a value is moved by at most one step along each of the axes. Projected
        on the i-th feature, a simplex is 1/4 and those steps are 1/2 of 4 sqrt(i/(i+1)) / sqrt(2/3) sigmas long, x being the
        first feature and y the second.
        """
        x, y = (4 * (i / (i + 1)) ** 0.5 / (2 / 3) ** 0.5 * self.sigma for i in (1, 2))
        return ceil(y) + 2, ceil(x) + 2

    def features(self, rows: slice, columns: slice) -> Floats:
        """(2 or 5, N) of a window's pixels, column by column, as `crf.dense_crf` has them of the photo's."""
        y, x = (np.arange(part.start, part.stop).astype(np.float32) / self.sigma for part in (rows, columns))
        features = np.empty((2 if self.colour_sigma is None else 5, len(x), len(y)), np.float32)
        features[0], features[1] = x[:, None], y
        if self.colour_sigma is not None:
            for channel in range(3):
                features[2 + channel] = self.image[rows, columns, channel].T.astype(np.float32) / self.colour_sigma
        return features.reshape(len(features), -1)

    def around(self, tile: Tile) -> Tile:
        """The tile with this term's margin."""
        window = (tile.rows.start, tile.rows.stop, tile.columns.start, tile.columns.stop)
        return tile_around((self.image.shape[0], self.image.shape[1]), window, self.margin)


def crf_labels(image: NDArray[np.uint8], probabilities: DiskMaps, spec: CrfSpec) -> Labels:
    """image (H, W, 3) uint8 RGB; probabilities (K, H, W), each pixel's labels summing to 1 → the index (H, W) of each pixel's
    likeliest label after the CRF, as the highest of `crf.dense_crf`. Raises what `crf_labels_with_confidence` raises."""
    return crf_labels_with_confidence(image, probabilities, spec)[0]


def crf_labels_with_confidence(
    image: NDArray[np.uint8], probabilities: DiskMaps, spec: CrfSpec
) -> tuple[Labels, Floats | None]:
    """As `crf_labels`, and the probability (H, W) of each pixel's label, where `spec.confidence` asks for one.

    ImageError where the sigmas are so large that not even a small tile's lattice fits; OSError where the disk is full.
    """
    highest = np.full(probabilities.shape[0], -np.inf, np.float32)
    for rows in strips(probabilities.size, 4 * probabilities.shape[0]):
        values = probabilities.read(rows)
        highest = np.maximum(highest, values.reshape(len(values), -1).max(axis=1))
    active = np.flatnonzero(np.maximum(highest, 0) > min(spec.least_probability, max(highest.max(), 0)))
    if len(active) < 2:
        best = None if spec.confidence is None else probabilities.read(slice(None)).max(axis=0)
        return probabilities.highest(), best
    field = _MeanField(image, probabilities, active, spec)
    return field.labels(), field.confidence


class _MeanField:
    """Mean-field inference of the `active` labels, as kernels/mean_field.py, whose first label is never filtered."""

    def __init__(self, image: NDArray[np.uint8], probabilities: DiskMaps, active: NDArray[np.intp], spec: CrfSpec) -> None:
        self.spec, self.probabilities, self.active = spec, probabilities, active
        self.size, folder = probabilities.size, probabilities.folder
        self.lanes = min(len(active) - 1, MAX_LANES)
        self.blocks = -(-(len(active) - 1) // self.lanes)
        self.terms = [
            _Term(image, sigma, colour_sigma, weight, DiskMaps((1, *self.size), folder))
            for sigma, colour_sigma, weight in (
                (spec.gaussian_sigma, None, spec.gaussian_weight),
                (spec.bilateral_sigma, spec.bilateral_colour_sigma, spec.bilateral_weight),
            )
        ]
        self.sums = DiskMaps((1, *self.size), folder)  # of all labels' logits
        self.others, self.next_others = (DiskMaps((self.blocks, *self.size, self.lanes), folder) for _ in range(2))
        self.result = np.empty(self.size, np.uint8)
        self.confidence = None if spec.confidence is None else np.empty(self.size, np.float32)

    def labels(self) -> Labels:
        """(H, W) after all iterations."""
        fitting = list(self._measure())
        for tile in fitting:
            self._start(tile)
        for _ in range(self.spec.iterations):
            for tile in fitting:
                self._step(tile)
            self.others, self.next_others = self.next_others, self.others
        return self.result

    def _measure(self) -> Iterator[Tile]:
        """Tiles whose lattices fit, with the masses of their pixels filled in."""
        for tile in tiles(self.size, self._largest_side(), (0, 0)):
            yield from self._measure_tile(tile)

    def _largest_side(self) -> int:
        """Of a tile whose pixels alone take no more than half of the memory."""
        side = MAX_SIDE
        while side > MIN_SIDE and self._max_corners((side + 2 * self.terms[1].margin[0]) ** 2, side**2) < side**2:
            side = side * 3 // 4
        return side

    def _max_corners(self, region_pixels: int, pixels: int) -> int:
        """How many corners a lattice may have beside what its region's pixels and the tile's take."""
        held_bytes = region_pixels * 8 * self.lanes + pixels * 4 * (3 * len(self.active) + 4)
        return min((MAX_BYTES_AT_ONCE - held_bytes - region_pixels * pixel) // corner for pixel, corner in AT_WORK)

    def _measure_tile(self, tile: Tile) -> Iterator[Tile]:
        """The tile, or smaller ones in its place."""
        rows, columns = tile.rows, tile.columns
        for term in self.terms:
            around = term.around(tile)
            lattice = self._lattice(term, around, tile)
            if lattice is None:
                break
            height, width = around.region_shape
            mass = lattice.filtered_ones().reshape(width, height).T[around.inner]
            term.mass.write(rows, columns, mass[None])
        else:
            yield tile
            return
        side = max(rows.stop - rows.start, columns.stop - columns.start) // 2
        if side < MIN_SIDE // 2:
            raise ImageError(
                f"a photo of {self.size[1]}×{self.size[0]} pixels does not fit into memory for a CRF with refine.crf."
                f"bilateral_sigma={self.spec.bilateral_sigma:g}; lower it, or shrink the photo (folders: dataset.max_side)"
            )
        for smaller in tiles((rows.stop - rows.start, columns.stop - columns.start), side, (0, 0)):
            window = (
                slice(rows.start + smaller.rows.start, rows.start + smaller.rows.stop),
                slice(columns.start + smaller.columns.start, columns.start + smaller.columns.stop),
            )
            yield from self._measure_tile(Tile(*window, *window))

    def _lattice(self, term: _Term, around: Tile, tile: Tile) -> Lattice | None:
        """The lattice of a term's region, not normalised; None where it does not fit."""
        height, width = around.region_shape
        pixels = (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)
        limit = self._max_corners(height * width, pixels)
        if limit <= 0:
            return None
        return plain_lattice(term.features(around.region_rows, around.region_columns), limit)

    def _normalised(self, term: _Term, around: Tile, tile: Tile) -> Lattice:
        lattice = self._lattice(term, around, tile)
        assert lattice is not None  # it was measured
        lattice.normalise(term.mass.read(around.region_rows, around.region_columns)[0].T.ravel())
        return lattice

    def _unary(self, tile: Tile) -> Floats:
        """(K, N) of the tile's pixels."""
        values = self.probabilities.read(tile.rows, tile.columns)[self.active]
        return -np.log(np.clip(values, MIN_PROBABILITY, 1.0)).reshape(len(self.active), -1)

    def _logits(self, unary: Floats) -> Floats:
        """unary (K, N) → (blocks, N, lanes) of all labels but the first."""
        return self._blocks(-unary[1:])

    def _blocks(self, planes: Floats) -> Floats:
        """planes (K-1, N) of all labels but the first → (blocks, N, lanes)."""
        padded = np.zeros((self.blocks * self.lanes, planes.shape[1]), np.float32)
        padded[: len(planes)] = planes
        return np.ascontiguousarray(padded.reshape(self.blocks, self.lanes, -1).transpose(0, 2, 1))

    def _start(self, tile: Tile) -> None:
        """Probabilities from the unary alone, and what the logits of a pixel's labels sum to in every iteration."""
        unary = self._unary(tile)
        sums = -unary.sum(axis=0)
        self._softmax(tile, self._logits(unary), sums, self.others)
        for term in self.terms:
            around = term.around(tile)
            ones = self._normalised(term, around, tile).filtered_ones().reshape(around.region_shape[::-1]).T[around.inner]
            sums += term.weight * ones.ravel()
        self.sums.write(tile.rows, tile.columns, sums.reshape(1, *tile.shape))

    def _step(self, tile: Tile) -> None:
        """One mean-field step of the tile's pixels."""
        logits = self._logits(self._unary(tile))
        for term in self.terms:
            around = term.around(tile)
            lattice = self._normalised(term, around, tile)
            for block in range(self.blocks):
                values = self.others.read(around.region_rows, around.region_columns, slice(block, block + 1))[0]
                result = np.zeros_like(values)
                result[around.inner] = logits[block].reshape(*tile.shape, self.lanes)
                values, result = _by_columns(values), _by_columns(result)
                flat = result.reshape(-1, self.lanes)
                lattice.filtered(values.reshape(-1, self.lanes), term.weight, flat, flat)
                logits[block] = result.transpose(1, 0, 2)[around.inner].reshape(-1, self.lanes)
        self._softmax(tile, logits, self.sums.read(tile.rows, tile.columns).ravel(), self.next_others)

    def _softmax(self, tile: Tile, logits: Floats, sums: Floats, result: DiskMaps) -> None:
        """Probabilities of the tile's labels to `result`, and the likeliest label."""
        rows = np.ascontiguousarray(logits.transpose(1, 0, 2)).reshape(len(sums), -1)
        probabilities = softmax(rows, len(self.active) - 1, sums)
        foreground = self._blocks(probabilities[1:])
        result.write(tile.rows, tile.columns, foreground.reshape(self.blocks, *tile.shape, self.lanes))
        self.result[tile.rows, tile.columns] = self.active[probabilities.argmax(axis=0)].reshape(tile.shape)
        if self.confidence is not None:
            self.confidence[tile.rows, tile.columns] = probabilities.max(axis=0).reshape(tile.shape)


def _by_columns(rows: Floats) -> Floats:
    """(H, W, lanes) → (W, H, lanes), in that order in memory."""
    return np.ascontiguousarray(rows.transpose(1, 0, 2))
