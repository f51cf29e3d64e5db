/* The filter on the lattice: pixels' values are spread on their corners, blurred, and read back (lattice.py). */
#include "rows.h"

enum { AHEAD = 6 }; /* pixels whose corners the processor fetches meanwhile */

/* The corners [start, end) of one slab, and where their rows are. */
typedef struct {
  float *rows;
  uint32_t start, end;
} Slab;

/* The row of a neighbour in a slab, or `zeros` where it is missing, M: without a branch, which the processor could not foresee. */
INLINE const float *row_of(int lanes, uint32_t M, Slab slab, uint32_t corner, const float *zeros) {
  uintptr_t row = (uintptr_t)(slab.rows + (size_t)(corner - slab.start) * lanes), is_there = -(uintptr_t)(corner != M);
  return (const float *)((row & is_there) | ((uintptr_t)zeros & ~is_there));
}

/* Each corner of `here` gets half of its two neighbours' rows beside its own; pairs (M, 2) uint32 lie in the slabs `first` and
   `second`. A missing neighbour is M, and `zeros` its row. */
INLINE void blur_slab(int lanes, uint32_t M, const uint32_t *pairs, Slab here, Slab first, Slab second, const float *zeros,
                      float *result) {
  const float *from = here.rows;
  for (uint32_t i = here.start; i < here.end; i++, from += lanes, result += lanes) {
    uint32_t one = pairs[2 * (size_t)i], other = pairs[2 * (size_t)i + 1];
    const float *left = row_of(lanes, M, first, one, zeros);
    const float *right = row_of(lanes, M, second, other, zeros);
#define BLUR(Vector, l) \
  AT(Vector, result, l) = AT(const Vector, from, l) + 0.5f * (AT(const Vector, left, l) + AT(const Vector, right, l));
    ALL_VECTORS(BLUR)
#undef BLUR
  }
}

/* Along all D axes, in their order, slab by slab, so that the rows of few slabs are at work at a time and stay in the cache.

   Axes `leading` and `leading` + 1 alone change a key's leading digit, by one, so they need the slabs before and after; the other
   axes stay in a slab. Work: 1 + 8 x the longest slab rows. */
INLINE void blur_grid(int lanes, int D, uint32_t M, const uint32_t *neighbours, int64_t count, const uint32_t *slabs, float *grid,
                      float *result, float *work) {
  int leading = (D - 1) / 2;
  uint32_t longest = 0;
  for (int64_t s = 0; s < count; s++) longest = MAX(longest, slabs[s + 1] - slabs[s]);
  float *zeros = work, *spare = work + lanes, *rows[6];
  for (int i = 0; i < 6; i++) rows[i] = spare + (size_t)(i + 1) * longest * lanes;
  memset(zeros, 0, lanes * sizeof *zeros);
#define PAIRS(axis) (neighbours + (size_t)(axis) * M * 2)
#define SLAB(s, ring) ((Slab){rows[(ring) + (s) % 3], slabs[s], slabs[(s) + 1]}) /* the latest three slabs */
#define IN_SLAB(axis, slab, to) blur_slab(lanes, M, PAIRS(axis), slab, slab, slab, zeros, to)
  for (int64_t s = 0; s < count + 2; s++) {
    if (s < count) {
      Slab own = {grid + (size_t)slabs[s] * lanes, slabs[s], slabs[s + 1]}, latest = SLAB(s, 0), other = own;
      if (leading == 2) { /* two axes come before: by way of the spare rows */
        other.rows = spare;
        IN_SLAB(0, own, spare);
      }
      IN_SLAB(leading - 1, other, latest.rows);
      memset(own.rows, 0, (size_t)(own.end - own.start) * lanes * sizeof *own.rows);
    }
    int64_t t = s - 1;
    if (t >= 0 && t < count) {
      Slab after = t + 1 < count ? SLAB(t + 1, 0) : SLAB(t, 0), before = t > 0 ? SLAB(t - 1, 0) : SLAB(t, 0);
      blur_slab(lanes, M, PAIRS(leading), SLAB(t, 0), after, before, zeros, SLAB(t, 3).rows);
    }
    t = s - 2;
    if (t >= 0 && t < count) {
      Slab after = t + 1 < count ? SLAB(t + 1, 3) : SLAB(t, 3), before = t > 0 ? SLAB(t - 1, 3) : SLAB(t, 3), own = SLAB(t, 3);
      float *end = result + (size_t)slabs[t] * lanes;
      blur_slab(lanes, M, PAIRS(leading + 1), own, before, after, zeros, leading == 2 ? spare : end);
      if (leading == 2) { /* two axes come after: what is left of the slab's first ring is free */
        Slab first = {spare, own.start, own.end}, second = {rows[t % 3], own.start, own.end};
        IN_SLAB(4, first, second.rows);
        IN_SLAB(5, second, end);
      }
    }
  }
}

INLINE void blur_lattice(int lanes, int D, int64_t M, const uint32_t *neighbours, int64_t count, const uint32_t *slabs, float *grid,
                         float *result, float *work) {
  if (D == 3)
    blur_grid(lanes, 3, (uint32_t)M, neighbours, count, slabs, grid, result, work);
  else
    blur_grid(lanes, 6, (uint32_t)M, neighbours, count, slabs, grid, result, work);
}

/* grid (M, lanes) → the blurred `result` (M, lanes); the grid is zeros then. neighbours (D, M, 2) and slabs (count+1,) uint32 as of
   lattice.c. */
void LOOP(blur)(int64_t lanes, int64_t D, int64_t M, const uint32_t *neighbours, int64_t count, const uint32_t *slabs, float *grid,
                float *result, float *work) {
  BY_LANES(lanes, blur_lattice, (int)D, M, neighbours, count, slabs, grid, result, work)
}

INLINE void spread_rows(int lanes, int D, int64_t N, const uint32_t *corners, const float *weights, const float *values,
                        float *grid) {
  for (int64_t i = 0; i < N; i++) {
    for (int j = 0; i + AHEAD < N && j < D; j++) fetch_row(lanes, grid + (size_t)corners[(i + AHEAD) * D + j] * lanes);
    spread_row(lanes, D, corners + i * D, weights + i * D, values + i * lanes, grid);
  }
}

/* Add values (N, lanes), weighted (N, D), to their corners' (N, D) rows of the grid (M, lanes). */
void LOOP(spread)(int64_t lanes, int64_t D, int64_t N, const uint32_t *corners, const float *weights, const float *values,
                  float *grid) {
  BY_FEW_LANES(lanes, spread_rows, (int)D, N, corners, weights, values, grid)
}

INLINE void read_rows(int lanes, int D, int64_t N, float factor, const uint32_t *corners, const float *weights, const float *grid,
                      float *result) {
  for (int64_t i = 0; i < N; i++) {
    for (int j = 0; i + AHEAD < N && j < D; j++) fetch_row(lanes, grid + (size_t)corners[(i + AHEAD) * D + j] * lanes);
    read_row(lanes, D, factor, corners + i * D, weights + i * D, grid, result + i * lanes);
  }
}

/* Add factor x the corners' rows of the grid, weighted, to the result (N, lanes). */
void LOOP(read_back)(int64_t lanes, int64_t D, int64_t N, float factor, const uint32_t *corners, const float *weights,
                     const float *grid, float *result) {
  BY_FEW_LANES(lanes, read_rows, (int)D, N, factor, corners, weights, grid, result)
}
