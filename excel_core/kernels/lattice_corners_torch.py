"""Corners of the permutohedral lattice on a device, by torch: those of lattice_corners.py, for several photos at once.

A corner is identified by a linear hash of its coordinates modulo 2^64. Linear, so that a neighbour's hash is the corner's plus
a constant. Two corners with the same hash would be smoothed as one; for ten million corners the odds are below 1e-6.

Corners are found by sorting the hashes of all pixels' corners, not by a table that threads fill in any order. So a photo's
corners, and the order in which its pixels are summed, are the same in every run and beside whatever other photos.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MISSING", "DeviceCorners", "find_device_corners"]

# Factors of a corner's coordinates in its hash: the fractions of pi, e and the roots of 2, 3, 5 in binary, made odd.
FACTORS = (0x243F6A8885A308D3, 0x37E151628AED2A6B, 0x6A09E667F3BCC909, 0x3B67AE8584CAA73B, 0x3C6EF372FE94F82B)
PHOTO_FACTOR = 0x510E527FADE682D1  # of a photo's number in its corners' hashes: the fraction of the root of 13, made odd
MISSING = -1  # where a corner has no neighbour


@dataclass(frozen=True)
class DeviceCorners:
    """The M corners of N pixels of all photos; D = d+1. All indices are int32.

    corners (D, N), with barycentric `weights` (D, N); neighbours (D, 2, M) of each corner along each axis, or MISSING;
    the same pairs of pixel and corner by corner: `order` (D N,) int64 into the flattened transposed (N, D) of corners and
    weights, `starts` and `ends` (M,) of each corner in it.
    """

    corners: Tensor
    weights: Tensor
    neighbours: Tensor
    order: Tensor
    starts: Tensor
    ends: Tensor


def find_device_corners(features: Tensor, photos: Tensor) -> DeviceCorners:
    """features (d, N) float32 in units of the Gaussian's sigma, photos (N,) int64 numbers of the pixels' photos → their
    corners."""
    D, N = features.shape[0] + 1, features.shape[1]
    nearest, rank, part = _place(features)
    moves = _moves(D, features.device)
    codes = _codes(nearest, rank, moves) + PHOTO_FACTOR * photos
    sorted_codes, order = torch.sort(codes.T.flatten(), stable=True)
    is_first = torch.ones_like(sorted_codes, dtype=torch.bool)
    torch.ne(sorted_codes[1:], sorted_codes[:-1], out=is_first[1:])
    starts = is_first.nonzero().flatten()
    ends = torch.cat([starts[1:], starts.new_tensor([len(order)])])
    # Corners are numbered as their first pixels are, so that what lies together in the photo lies together in memory.
    by_place = torch.argsort(order[starts])
    number = torch.empty_like(by_place, dtype=torch.int32)
    number[by_place] = torch.arange(len(by_place), dtype=torch.int32, device=features.device)
    corners = torch.empty(len(order), dtype=torch.int32, device=features.device)
    corners[order] = number[is_first.cumsum(0) - 1]
    unique = sorted_codes[starts]
    neighbours = torch.stack([_neighbours(unique, number, move)[:, by_place] for move in moves])
    return DeviceCorners(
        corners.reshape(N, D).T.contiguous(),
        _weights(rank, part),
        neighbours,
        order,
        starts[by_place].int(),
        ends[by_place].int(),
    )


def _place(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """features (d, N) → on the plane whose d+1 coordinates sum to 0: the first corner (D, N) of the simplex, the rank (D, N) of
    the axes by the distance from it, 0 the furthest, and that distance (D, N), in steps of the lattice."""
    d, N = features.shape
    D = d + 1
    part, total = features.new_empty(D, N), features.new_zeros(N)
    for i in range(d, 0, -1):
        # Scaled so that the lattice's own blur is that of a unit sigma; there is no coordinate 0.
        step = features[i - 1] * ((2 / 3) ** 0.5 * D / ((i + 1) * i) ** 0.5)
        part[i] = total - i * step
        total += step
    part[0] = total
    multiple = (part * (1 / D)).round()  # the nearest point whose coordinates are multiples of D need not lie on the plane
    part -= D * multiple
    rank = torch.zeros_like(part, dtype=torch.int64)
    for i in range(d):
        for j in range(i + 1, D):
            behind = (part[i] < part[j]).long()
            rank[i] += behind
            rank[j] += 1 - behind
    rank += multiple.sum(dim=0).long()  # move it back onto the plane, along the axes where that costs least
    turns = (rank < 0).long() - (rank > d).long()
    return D * (multiple.long() + turns), rank + D * turns, (part - D * turns) * (1 / D)


def _weights(rank: Tensor, part: Tensor) -> Tensor:
    """Barycentric weights (D, N): the differences of the parts in falling order, the last first."""
    rising = torch.empty_like(part).scatter_(0, rank, part).flip(0)
    weights = rising - rising.roll(1, dims=0)
    weights[0] += 1
    return weights


def _moves(D: int, device: torch.device) -> Tensor:
    """(D,) int64: the change of a hash from a corner to its neighbour along each axis: one up along all axes, but d down along
    that one."""
    factors = torch.tensor(FACTORS[: D - 1])
    moves = factors.sum().repeat(D)
    moves[: D - 1] -= D * factors
    return moves.to(device)


def _codes(nearest: Tensor, rank: Tensor, moves: Tensor) -> Tensor:
    """Hashes (D, N) int64 of the simplices' corners."""
    D = len(nearest)
    axes = torch.arange(D, device=rank.device)[:, None].expand_as(rank)
    last_first = torch.empty_like(rank).scatter_(0, rank, axes).flip(0)  # the axis of each rank
    codes = moves[last_first].roll(1, dims=0)
    codes[0] = 0
    for i in range(D - 1):
        codes[0] += FACTORS[i] * nearest[i]
    return codes.cumsum(dim=0)


def _neighbours(codes: Tensor, number: Tensor, move: Tensor) -> Tensor:
    """codes (M,) sorted, each corner's number (M,), a step along an axis → the numbers (2, M) of the neighbours before and
    after."""
    neighbour_codes = torch.stack([codes - move, codes + move])
    place = torch.searchsorted(codes, neighbour_codes).clamp_max(len(codes) - 1)
    return torch.where(codes[place] == neighbour_codes, number[place], MISSING).int()
