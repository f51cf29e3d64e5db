# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""Bounding boxes of connected regions on small grids, a program for each map, on a GPU (method 4)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["boxes_of_regions"]


def boxes_of_regions(above: Tensor) -> Tensor:
    """above (K, h, w) bool on a GPU → bool (K, h, w): the cells in the bounding box of any of the map's regions, connected over
    sides and corners; a box's exclusive ends are clipped to h-1 and w-1 (published). Nothing waits for the device."""
    maps, h, w = above.shape
    rows, columns = triton.next_power_of_2(h), triton.next_power_of_2(w)
    work = torch.empty(maps, 6, rows * columns, dtype=torch.int32, device=above.device)
    above = above.contiguous()
    boxes = torch.empty_like(above)
    if maps:
        warps = max(1, min(8, rows * columns // 128))
        _boxes[(maps,)](above.view(torch.uint8), work, boxes.view(torch.uint8), h, w, rows, columns, num_warps=warps)
    return boxes


@triton.jit(do_not_specialize=["h", "w"])  # as constants, grids of one row or column would need kernels of their own
def _boxes(above, work, boxes, h, w, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Each cell takes the lowest number among the cells around it, and the number that this cell has by now, until nothing
    changes; then a region's cells all have the number of its first one. The threads see each other's values in `work`."""
    CELLS: tl.constexpr = ROWS * COLUMNS
    cells = tl.arange(0, CELLS)
    y, x = cells // COLUMNS, cells % COLUMNS
    inside = (y < h) & (x < w)
    place = tl.program_id(0) * h * w + y * w + x
    is_above = inside & (tl.load(above + place, mask=inside, other=0) != 0)
    label = work + tl.program_id(0) * 6 * CELLS
    top, bottom, left, right, corners = (
        label + CELLS,
        label + 2 * CELLS,
        label + 3 * CELLS,
        label + 4 * CELLS,
        label + 5 * CELLS,
    )
    number = tl.where(is_above, cells, CELLS)
    tl.store(label + cells, number)
    tl.store(top + cells, tl.full([CELLS], ROWS, tl.int32))
    tl.store(bottom + cells, tl.full([CELLS], -1, tl.int32))
    tl.store(left + cells, tl.full([CELLS], COLUMNS, tl.int32))
    tl.store(right + cells, tl.full([CELLS], -1, tl.int32))
    tl.store(corners + cells, tl.zeros([CELLS], tl.int32))
    tl.debug_barrier()
    changed = 1
    while changed > 0:
        lowest = number
        for n in tl.static_range(9):
            row, column = y + n // 3 - 1, x + n % 3 - 1
            there = is_above & (row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS)
            lowest = tl.minimum(lowest, tl.load(label + row * COLUMNS + column, mask=there, other=CELLS, volatile=True))
        lowest = tl.minimum(lowest, tl.load(label + lowest, mask=is_above, other=CELLS, volatile=True))
        changed = tl.max((lowest < number).to(tl.int32), axis=0)
        number = lowest
        tl.debug_barrier()  # all have read
        tl.store(label + cells, number)
        tl.debug_barrier()  # all have written
    tl.atomic_min(top + number, y, mask=is_above)
    tl.atomic_max(bottom + number, y, mask=is_above)
    tl.atomic_min(left + number, x, mask=is_above)
    tl.atomic_max(right + number, x, mask=is_above)
    tl.debug_barrier()
    # A box adds 1 from its first corner on, below and to the right, and takes it back past its ends.
    is_first = is_above & (number == cells)
    y0 = tl.load(top + cells, mask=is_first, other=0, volatile=True)
    x0 = tl.load(left + cells, mask=is_first, other=0, volatile=True)
    y1 = tl.minimum(tl.load(bottom + cells, mask=is_first, other=0, volatile=True) + 1, h - 1)
    x1 = tl.minimum(tl.load(right + cells, mask=is_first, other=0, volatile=True) + 1, w - 1)
    one = tl.full([CELLS], 1, tl.int32)
    tl.atomic_add(corners + y0 * COLUMNS + x0, one, mask=is_first)
    tl.atomic_add(corners + y0 * COLUMNS + x1, -one, mask=is_first)
    tl.atomic_add(corners + y1 * COLUMNS + x0, -one, mask=is_first)
    tl.atomic_add(corners + y1 * COLUMNS + x1, one, mask=is_first)
    tl.debug_barrier()
    grid = tl.load(corners + cells, volatile=True).reshape(ROWS, COLUMNS)
    covered = tl.cumsum(tl.cumsum(grid, axis=0), axis=1).reshape(CELLS)
    tl.store(boxes + place, (covered > 0).to(tl.uint8), mask=inside)
