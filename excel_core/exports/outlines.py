"""Outlines of masks along the edges of their pixels: polygons that hold the mask's pixels, and no others.

A region is a set of pixels that touch by their sides. Its outline is an outer ring, and a ring for each hole. Corners are x, y
in pixels from the image's upper left corner, so that a pixel at column 3 reaches from x = 3 to x = 4.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["Region", "one_ring", "regions"]

Corners = NDArray[np.int64]
Corner = tuple[int, int]
RIGHT, DOWN, LEFT, UP = range(4)  # each is the one before, turned to the right


@dataclass(frozen=True)
class Region:
    """A region's rings of corners (N, 2), the first not repeated: the outer one clockwise on the screen, holes the other way.
    `area` in pixels; `box` is x, y, width and height."""

    outer: Corners
    holes: tuple[Corners, ...]
    area: int
    box: tuple[int, int, int, int]


def regions(mask: NDArray[np.bool_]) -> list[Region]:
    """The regions of a mask (H, W), from top to bottom."""
    numbered, _ = ndimage.label(mask)
    components = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
        pixels = numbered[rows, columns] == number
        offset = np.array([columns.start, rows.start])
        outer: list[Corners] = []
        holes: list[Corners] = []
        for ring in _rings(pixels):
            (outer if _signed_area(ring) > 0 else holes).append(ring + offset)
        height, width = pixels.shape
        components.append(Region(outer[0], tuple(holes), int(pixels.sum()), (columns.start, rows.start, width, height)))
    return components


def one_ring(region: Region) -> Corners:
    """The outline as a single ring (N, 2), for tools without holes: a bridge without width leads to each hole and back."""
    ring = region.outer
    for hole in region.holes:
        squares = ((ring[:, None] - hole[None]) ** 2).sum(axis=2)
        at, start = np.unravel_index(int(squares.argmin()), squares.shape)
        around = np.concatenate([hole[start:], hole[: start + 1]])
        ring = np.concatenate([ring[: at + 1], around, ring[at:]])
    return ring


def _rings(pixels: NDArray[np.bool_]) -> list[Corners]:
    """Walk along the edges with the region on the right hand → its rings."""
    leaving = _edges(pixels)
    unused = dict.fromkeys((corner, direction) for corner, edges in leaving.items() for direction in edges)
    rings = []
    while unused:
        edge = first = next(iter(unused))
        ring = []
        while True:
            del unused[edge]
            corner, direction = edge
            ring.append(corner)
            reached = leaving[corner][direction]
            # Where two pixels touch by a corner alone, two edges leave: the right turn stays with its own pixel.
            right = (direction + 1) % 4
            edge = reached, right if right in leaving[reached] else next(iter(leaving[reached]))
            if edge == first:
                break
        rings.append(np.array(ring, dtype=np.int64))
    return rings


def _edges(pixels: NDArray[np.bool_]) -> dict[Corner, dict[int, Corner]]:
    """The straight edges between a region and what is around it: from a corner, by direction, to the next corner."""
    padded = np.pad(pixels, 1).astype(np.int8)
    leaving: dict[Corner, dict[int, Corner]] = {}
    for y, first, end, begins in _runs(np.diff(padded, axis=0)[:, 1:-1]):
        start, direction, stop = ((first, y), RIGHT, (end, y)) if begins else ((end, y), LEFT, (first, y))
        leaving.setdefault(start, {})[direction] = stop
    for x, first, end, begins in _runs(np.diff(padded, axis=1)[1:-1].T):
        start, direction, stop = ((x, end), UP, (x, first)) if begins else ((x, first), DOWN, (x, end))
        leaving.setdefault(start, {})[direction] = stop
    return leaving


def _runs(steps: NDArray[np.int8]) -> Iterator[tuple[int, int, int, bool]]:
    """steps (lines, cells), 1 where the region begins across the line and -1 where it ends → line, first cell, end, begins."""
    padded = np.pad(steps, ((0, 0), (1, 1)))
    lines, at = np.nonzero(np.diff(padded, axis=1))
    values = padded[lines, at + 1]
    bounded = np.flatnonzero(values)  # what follows a change, up to the next one; after the last of a line come zeros
    yield from zip(
        lines[bounded].tolist(), at[bounded].tolist(), at[bounded + 1].tolist(), (values[bounded] > 0).tolist(), strict=True
    )


def _signed_area(ring: Corners) -> int:
    """The area that a ring encloses, above 0 where it is clockwise on the screen."""
    x, y = ring.T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) // 2
