# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""Which pixels of which picture a program of a kernel works on: what all kernels on packed pictures begin with."""

import triton
import triton.language as tl

__all__ = ["tile_pixels"]


@triton.jit
def tile_pixels(table, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Program (tile, picture), `table` of PackedSizes → the picture's first pixel, height, width and first tile; row and column
    of each of the tile's pixels, (ROWS * COLUMNS,); and whether they are in the picture: none is, where it has no such tile."""
    entry = table + 4 * tl.program_id(1)
    first = tl.load(entry)
    height = tl.load(entry + 1).to(tl.int32)
    width = tl.load(entry + 2).to(tl.int32)
    first_tile = tl.load(entry + 3)
    across = tl.cdiv(width, COLUMNS)
    lanes = tl.arange(0, ROWS * COLUMNS)
    y = tl.program_id(0) // across * ROWS + lanes // COLUMNS
    x = tl.program_id(0) % across * COLUMNS + lanes % COLUMNS
    return first, height, width, first_tile, y, x, (y < height) & (x < width)
