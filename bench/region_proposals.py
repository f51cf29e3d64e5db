"""Masks for `refine.votes` of photos whose objects are of one colour each, such as the demo's, without any segmenter: connected
regions of similar colour, at several finenesses. It stands in for a promptable segmenter where there is none.

    python -m bench.region_proposals PHOTOS OUT
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from excel_core.datasets.images import load_image
from excel_core.datasets.mask_proposals import proposals_file, write_proposals

__all__ = ["colour_regions", "write_region_proposals"]

COLOURS = (4, 8, 16)  # of the palettes that a photo is reduced to
LEAST, MOST = 0.004, 0.5  # share of the photo that a region takes


def colour_regions(photo: NDArray[np.uint8]) -> Iterator[NDArray[np.bool_]]:
    """photo (H, W, 3) uint8 → masks (H, W) bool of connected regions of one palette colour, holes filled."""
    area = photo.shape[0] * photo.shape[1]
    smooth = Image.fromarray(np.stack([ndimage.median_filter(photo[..., c], 3) for c in range(3)], axis=-1))
    for colours in COLOURS:
        reduced = np.asarray(smooth.quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))
        for value in np.unique(reduced):
            regions, _ = ndimage.label(reduced == value)
            for index in np.flatnonzero(np.bincount(regions.ravel())[1:] >= LEAST * area) + 1:
                mask = ndimage.binary_fill_holes(regions == index)
                if mask.sum() <= MOST * area:
                    yield mask


def write_region_proposals(photos: Path, out: Path) -> int:
    """ID.json for each photo of a folder → how many masks."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return sum(write_proposals(proposals_file(out, file.stem), colour_regions(load_image(file))) for file in files)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    print(f"{write_region_proposals(given.photos, given.out):,} masks in {given.out}")
