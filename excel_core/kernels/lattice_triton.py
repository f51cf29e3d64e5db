"""Gaussian filtering on the permutohedral lattice and mean-field steps on a GPU, in Triton: lattice.py and mean_field.py for
several photos at once.

Values lie in blocks of labels, (blocks, rows, lanes): a row of a block is 16 or 32 bytes, what the memory gives at once. Every
sum has one fixed order and there are no atomic additions, so that each run gives the same bytes. Kernels are not specialised
for the sizes of photos and lattices, which are new in each batch: they would be compiled again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from excel_core.kernels.lattice_corners_torch import DeviceCorners, find_device_corners

__all__ = ["DeviceLattice", "build_device_lattice", "mean_field_on_device", "padded_labels"]

MAX_LANES = 8  # labels of a block
PIECE = 32  # pixels of a corner that are summed at once
TILE = 1024  # values that a program computes


@dataclass(frozen=True)
class Pieces:
    """The pixels of each corner, in pieces of at most PIECE: `pixels` and `weights` (D N,) by corner; `starts` and `ends` of
    each piece there, the longest first, and the `rows` of the grid that they are summed to. A corner's first piece is summed
    to its own row, the others to rows after those of all corners: `rest_starts` up to `rest_ends` for `rest_corners`."""

    pixels: Tensor
    weights: Tensor
    starts: Tensor
    ends: Tensor
    rows: Tensor
    rest_corners: Tensor
    rest_starts: Tensor
    rest_ends: Tensor
    row_count: int


@dataclass(frozen=True)
class DeviceLattice:
    """The lattice of N pixels: their `corners` (D, N) and `weights` (D, N), with the pieces of each corner. The filter is
    symmetric and of unit mass."""

    corners: Tensor
    weights: Tensor
    neighbours: Tensor
    pieces: Pieces

    def grids(self, blocks: int, lanes: int) -> tuple[Tensor, Tensor]:
        """Two work spaces (blocks, rows, lanes) float32 of `blurred`."""
        shape = (blocks, self.pieces.row_count, lanes)
        return self.weights.new_empty(shape), self.weights.new_empty(shape)

    def blurred(self, values: Tensor, grids: tuple[Tensor, Tensor]) -> Tensor:
        """values (blocks, N, lanes) → their sums at the corners, blurred along all axes: one of the `grids`
        (blocks, rows, lanes), whose first M rows count."""
        blocks, N, lanes = values.shape
        grid, other = grids
        tile, pieces, rows = TILE // lanes, self.pieces, self.pieces.row_count
        arguments = (pieces.pixels, pieces.weights, pieces.starts, pieces.ends, pieces.rows, len(pieces.rows))
        _spread[(triton.cdiv(len(pieces.rows), tile), blocks)](values, *arguments, grid, N, rows, lanes, tile)
        if len(pieces.rest_corners):
            size = (triton.cdiv(len(pieces.rest_corners), 32), blocks)
            rest = (pieces.rest_corners, pieces.rest_starts, pieces.rest_ends, len(pieces.rest_corners))
            _add_rest[size](grid, *rest, rows, lanes, 32)
        M = self.neighbours.shape[2]
        for neighbours in self.neighbours:
            _blur[(triton.cdiv(M, tile), blocks)](grid, neighbours, other, M, rows, lanes, tile)
            grid, other = other, grid
        return grid

    def scale(self) -> float:
        """What a filtered value is multiplied by, as in the CRF authors' own lattice."""
        return 1 / (1 + 2.0 ** (1 - len(self.corners)))


def build_device_lattice(features: Tensor, photos: Tensor) -> DeviceLattice:
    """features (d, N) float32 on a GPU, in units of the Gaussian's sigma; photos (N,) int64, the photo of each pixel → the
    lattices of all photos as one."""
    table = find_device_corners(features, photos)
    plain = DeviceLattice(table.corners, table.weights, table.neighbours, _pieces(table, table.weights))
    ones = features.new_ones(1, features.shape[1], 1)
    grid = plain.blurred(ones, plain.grids(1, 1)).flatten()
    mass = torch.zeros_like(table.weights[0])
    for corner, weight in zip(table.corners, table.weights, strict=True):  # in this order, whatever the number of pixels
        mass += plain.scale() * weight * grid[corner]
    # A pixel's weights enter when it spreads and when it reads: dividing by the root on both sides is the symmetric
    # normalisation.
    weights = table.weights / (mass + 1e-20).sqrt()
    return DeviceLattice(table.corners, weights, table.neighbours, _pieces(table, weights))


def _pieces(table: DeviceCorners, weights: Tensor) -> Pieces:
    """The pixels of each corner, with weights (D, N)."""
    D, M = len(table.corners), len(table.starts)
    extra = (table.ends - table.starts - 1) // PIECE  # pieces after the first
    with_rest = extra.nonzero().flatten()
    extra_ends = extra.cumsum(0)
    total = int(extra_ends[-1])
    corner = torch.repeat_interleave(with_rest, extra[with_rest], output_size=total)
    number = torch.arange(total, device=extra.device)  # of a piece after the first, of all corners
    starts = table.starts[corner] + PIECE * (number - (extra_ends - extra)[corner] + 1)
    starts = torch.cat([table.starts, starts.int()])
    ends = torch.minimum(starts + PIECE, torch.cat([table.ends, table.ends[corner]]))
    by_length = torch.argsort(ends - starts, descending=True, stable=True)  # so that a program's pieces are equally long
    return Pieces(
        pixels=(table.order // D).int(),
        weights=weights.T.flatten()[table.order],
        starts=starts[by_length],
        ends=ends[by_length],
        rows=by_length.int(),
        rest_corners=with_rest.int(),
        rest_starts=(M + extra_ends - extra)[with_rest].int(),
        rest_ends=(M + extra_ends)[with_rest].int(),
        row_count=M + total,
    )


def padded_labels(labels: int) -> tuple[int, int]:
    """(blocks, lanes) of that many labels."""
    lanes = 4 if labels <= 4 else MAX_LANES
    return -(-labels // lanes), lanes


def mean_field_on_device(logits: Tensor, terms: Sequence[tuple[DeviceLattice, float]], iterations: int) -> Tensor:
    """logits (K, N) float32, -inf where a photo has no such label; terms: two lattices of the N pixels, each with its weight →
    label probabilities (K, N).

    Q <- softmax(logits + sum of weight x the filtered Q), from Q = softmax(logits), `iterations` times.
    """
    K, N = logits.shape
    blocks, lanes = padded_labels(K)
    start = _in_blocks(logits)
    probabilities = torch.zeros_like(start)
    grids = [lattice.grids(blocks, lanes) for lattice, _ in terms]
    width = triton.next_power_of_2(blocks * lanes)
    tile = max(16, TILE // width)

    def step(blurred: Sequence[Tensor]) -> None:
        """The softmax of the logits and of what is read in the `blurred` grids, or, of none, of the logits alone."""
        arguments: list[Any] = []
        for (lattice, weight), grid in zip(terms, blurred or [grid for grid, _ in grids], strict=True):
            arguments += [grid, lattice.corners, lattice.weights, lattice.pieces.row_count, weight * lattice.scale()]
        counts = [len(lattice.corners) if blurred else 0 for lattice, _ in terms]
        _mean_field_step[(triton.cdiv(N, tile),)](
            start, *arguments, probabilities, N, *counts, blocks * lanes, lanes, width, tile
        )

    step([])
    for _ in range(iterations):
        step([lattice.blurred(probabilities, grid) for (lattice, _), grid in zip(terms, grids, strict=True)])
    return probabilities.transpose(1, 2).reshape(-1, N)[:K]


def _in_blocks(logits: Tensor) -> Tensor:
    """logits (K, N) → (blocks, N, lanes)."""
    K, N = logits.shape
    blocks, lanes = padded_labels(K)
    padded = logits.new_full((blocks * lanes, N), -torch.inf)
    padded[:K] = logits
    return padded.reshape(blocks, lanes, N).transpose(1, 2).contiguous()


@triton.jit(do_not_specialize=["count", "N", "row_count"])
def _spread(values, pixels, weights, starts, ends, rows, count, grid, N, row_count, lanes: tl.constexpr, tile: tl.constexpr):
    """Sum of the weighted values of each piece's pixels → its row of the grid."""
    block = tl.program_id(1).to(tl.int64)
    piece = tl.program_id(0) * tile + tl.arange(0, tile)
    lane = tl.arange(0, lanes)[None, :]
    is_piece = piece < count
    start = tl.load(starts + piece, mask=is_piece, other=0)
    end = tl.load(ends + piece, mask=is_piece, other=0)
    total = tl.zeros([tile, lanes], tl.float32)
    for step in range(0, tl.max(end - start)):
        place = start + step
        within = place < end
        pixel = tl.load(pixels + place, mask=within, other=0)
        weight = tl.load(weights + place, mask=within, other=0.0)
        value = tl.load(values + block * N * lanes + pixel[:, None] * lanes + lane, mask=within[:, None], other=0.0)
        total += weight[:, None] * value
    row = tl.load(rows + piece, mask=is_piece, other=0)
    tl.store(grid + block * row_count * lanes + row[:, None] * lanes + lane, total, mask=is_piece[:, None])


@triton.jit(do_not_specialize=["count", "row_count"])
def _add_rest(grid, corners, starts, ends, count, row_count, lanes: tl.constexpr, tile: tl.constexpr):
    """Add the sums of pieces after the first to their corner's row."""
    plane = grid + tl.program_id(1).to(tl.int64) * row_count * lanes
    index = tl.program_id(0) * tile + tl.arange(0, tile)
    lane = tl.arange(0, lanes)[None, :]
    is_corner = index < count
    start = tl.load(starts + index, mask=is_corner, other=0)
    end = tl.load(ends + index, mask=is_corner, other=0)
    row = plane + tl.load(corners + index, mask=is_corner, other=0)[:, None] * lanes + lane
    total = tl.load(row, mask=is_corner[:, None], other=0.0)
    for step in range(0, tl.max(end - start)):
        piece = (start + step)[:, None]
        total += tl.load(plane + piece * lanes + lane, mask=piece < end[:, None], other=0.0)
    tl.store(row, total, mask=is_corner[:, None])


@triton.jit(do_not_specialize=["M", "row_count"])
def _blur(grid, neighbours, result, M, row_count, lanes: tl.constexpr, tile: tl.constexpr):
    """Each corner's values and half of its two neighbours'."""
    plane = tl.program_id(1).to(tl.int64) * row_count * lanes
    corner = tl.program_id(0) * tile + tl.arange(0, tile)
    lane = tl.arange(0, lanes)[None, :]
    is_corner = corner < M
    left = tl.load(neighbours + corner, mask=is_corner, other=-1)[:, None]
    right = tl.load(neighbours + M + corner, mask=is_corner, other=-1)[:, None]
    own = corner[:, None] * lanes + lane
    total = tl.load(grid + plane + left * lanes + lane, mask=left >= 0, other=0.0)
    total += tl.load(grid + plane + right * lanes + lane, mask=right >= 0, other=0.0)
    total = tl.load(grid + plane + own, mask=is_corner[:, None], other=0.0) + 0.5 * total
    tl.store(result + plane + own, total, mask=is_corner[:, None])


@triton.jit(do_not_specialize=["first_rows", "second_rows", "N"])
def _mean_field_step(
    start,
    first_grid, first_corners, first_weights, first_rows, first_factor,
    second_grid, second_corners, second_weights, second_rows, second_factor,
    probabilities, N,
    first_D: tl.constexpr, second_D: tl.constexpr, labels: tl.constexpr, lanes: tl.constexpr, width: tl.constexpr,
    tile: tl.constexpr,
):  # fmt: skip
    """softmax(start + both filtered values, read at each pixel's corners) over the labels → probabilities."""
    pixel = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    label = tl.arange(0, width)[None, :]
    is_pixel = pixel < N
    is_value = is_pixel[:, None] & (label < labels)
    block, lane = (label // lanes).to(tl.int64), label % lanes
    own = block * N * lanes + pixel[:, None] * lanes + lane
    logits = tl.load(start + own, mask=is_value, other=-float("inf"))
    for j in tl.static_range(first_D):
        corner = tl.load(first_corners + j * N + pixel, mask=is_pixel, other=0)[:, None]
        weight = tl.load(first_weights + j * N + pixel, mask=is_pixel, other=0.0)[:, None] * first_factor
        place = block * first_rows * lanes + corner * lanes + lane
        logits += weight * tl.load(first_grid + place, mask=is_value, other=0.0)
    for j in tl.static_range(second_D):
        corner = tl.load(second_corners + j * N + pixel, mask=is_pixel, other=0)[:, None]
        weight = tl.load(second_weights + j * N + pixel, mask=is_pixel, other=0.0)[:, None] * second_factor
        place = block * second_rows * lanes + corner * lanes + lane
        logits += weight * tl.load(second_grid + place, mask=is_value, other=0.0)
    logits = tl.where(is_pixel[:, None], logits, 0.0)  # a row of -inf alone has no largest
    powers = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    tl.store(probabilities + own, powers / tl.sum(powers, axis=1)[:, None], mask=is_value)
