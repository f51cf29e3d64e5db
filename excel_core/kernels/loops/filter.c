/* The filter on the lattice: pixels' values are spread on their corners, blurred along the axes, and read back (lattice.py).

   All three go through the lattice slab by slab at the same time, so that no value of a corner ever leaves the cache. A slab is the
   corners of one leading digit (lattice.c). The axes `leading` and `leading` + 1 need the slabs before and after; the other axes stay
   in a slab. Pixels are grouped by the first of the two slabs that their corners lie
   in. Step s spreads group s, which completes slab s, blurs that one and parts of the two before it, and reads group s - 3. */
#include "rows.h"

enum { AHEAD = 8 };  /* pixels whose values the processor fetches meanwhile */
enum { BUFFERS = 13 }; /* of a slab's rows each */

/* The corners [start, end) of one slab, and where their rows are. */
typedef struct {
  float *rows;
  uint32_t start, end;
} Slab;

/* N pixels in groups, group s from starts[s] to starts[s + 1]: where each pixel is in the picture, its D corners, in rows from the
   first of slab s, and their weights. */
typedef struct {
  const uint32_t *starts, *order;
  const int32_t *corners;
  const float *weights;
} Pixels;

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

/* Add the values (N, lanes) of a group's pixels, weighted, to the rows of their corners. */
INLINE void spread_group(int lanes, int D, Pixels pixels, int64_t group, const float *values, float *rows) {
  for (int64_t i = pixels.starts[group], end = pixels.starts[group + 1]; i < end; i++) {
    if (i + AHEAD < end) fetch_row(lanes, values + (size_t)pixels.order[i + AHEAD] * lanes);
    const float *from = values + (size_t)pixels.order[i] * lanes;
    for (int j = 0; j < D; j++) {
      float *to = rows + (int64_t)pixels.corners[i * D + j] * lanes, weight = pixels.weights[i * D + j];
#define SPREAD(Vector, l) AT(Vector, to, l) += weight * AT(const Vector, from, l);
      ALL_VECTORS(SPREAD)
#undef SPREAD
    }
  }
}

/* result (N, lanes) of a group's pixels = base + factor x the weighted rows of their corners. */
INLINE void read_group(int lanes, int D, Pixels pixels, int64_t group, float factor, const float *grid, const float *base,
                       float *result) {
  for (int64_t i = pixels.starts[group], end = pixels.starts[group + 1]; i < end; i++) {
    if (i + AHEAD < end) fetch_row(lanes, base + (size_t)pixels.order[i + AHEAD] * lanes);
    const float *from = base + (size_t)pixels.order[i] * lanes, *rows[6];
    float *to = result + (size_t)pixels.order[i] * lanes, weights[6];
    for (int j = 0; j < D; j++) {
      rows[j] = grid + (int64_t)pixels.corners[i * D + j] * lanes;
      weights[j] = factor * pixels.weights[i * D + j];
    }
#define READ(Vector, l)                                                            \
  {                                                                                \
    Vector sum = AT(const Vector, from, l);                                        \
    for (int j = 0; j < D; j++) sum += weights[j] * AT(const Vector, rows[j], l);  \
    AT(Vector, to, l) = sum;                                                       \
  }
    ALL_VECTORS(READ)
#undef READ
  }
}

INLINE void filter(int lanes, int D, uint32_t M, float factor, Pixels pixels, const uint32_t *neighbours, int64_t count,
                   const uint32_t *slabs, const float *values, const float *base, float *result, float *work) {
  int leading = LEADING(D);
  uint32_t longest = 0;
  for (int64_t s = 0; s < count; s++) longest = MAX(longest, slabs[s + 1] - slabs[s]);
  float *zeros = work, *spare = work + lanes, *rows[BUFFERS];
  for (int i = 0; i < BUFFERS; i++) rows[i] = spare + (size_t)i * longest * lanes;
  memset(zeros, 0, lanes * sizeof *zeros);
  /* The latest slabs: RING that are spread on, 3 blurred up to `leading`, 3 after it, RING blurred along all axes. Where no axis comes
     before `leading`, what is spread is what is blurred next. A slab beyond the ends is empty. */
#define SLAB(first, size, s)                                                       \
  ((s) < 0 || (s) >= count ? (Slab){zeros, (s) < 0 ? 0 : M, (s) < 0 ? 0 : M}       \
                           : (Slab){rows[(first) + (s) % (size)], slabs[s], slabs[(s) + 1]})
#define SPREAD_ON(s) SLAB(1, RING(D), s)
#define BEFORE(s) SLAB(leading ? 3 : 1, leading ? 3 : RING(D), s)
#define AFTER(s) SLAB(6, 3, s)
#define BLURRED(s) SLAB(9, RING(D), s)
#define PAIRS(axis) (neighbours + (size_t)(axis) * M * 2)
#define IN_SLAB(axis, slab, to) blur_slab(lanes, M, PAIRS(axis), slab, slab, slab, zeros, to)
#define CLEAR(slab) memset((slab).rows, 0, (size_t)((slab).end - (slab).start) * lanes * sizeof *zeros)
  if (count) CLEAR(SPREAD_ON(0));
  for (int64_t s = 0; s < count + 3; s++) {
    if (s < count) {
      Slab own = SPREAD_ON(s), next = SPREAD_ON(s + 1);
      if (s + 1 < count) CLEAR(next);
      spread_group(lanes, D, pixels, s, values, own.rows);
      if (leading) { /* two axes come before: by way of the spare rows */
        Slab half = {spare, own.start, own.end};
        IN_SLAB(0, own, spare);
        IN_SLAB(1, half, BEFORE(s).rows);
      }
    }
    int64_t t = s - 1;
    if (t >= 0 && t < count)
      blur_slab(lanes, M, PAIRS(leading), BEFORE(t), BEFORE(t + 1), BEFORE(t - 1), zeros, AFTER(t).rows);
    t = s - 2;
    if (t >= 0 && t < count) {
      Slab own = AFTER(t), half = {spare, own.start, own.end}, end = BLURRED(t);
      blur_slab(lanes, M, PAIRS(leading + 1), own, AFTER(t - 1), AFTER(t + 1), zeros, spare);
      if (leading) { /* two axes come after: the slab's rows of `before` are free by now */
        Slab other = {BEFORE(t).rows, own.start, own.end};
        IN_SLAB(4, half, other.rows);
        half = other;
      }
      IN_SLAB(D - 1, half, end.rows);
    }
    t = s - 3;
    if (t >= 0) read_group(lanes, D, pixels, t, factor, BLURRED(t).rows, base, result);
  }
}

INLINE void filter_by_lanes(int lanes, int64_t D, int64_t M, float factor, Pixels pixels, const uint32_t *neighbours, int64_t count,
                            const uint32_t *slabs, const float *values, const float *base, float *result, float *work) {
  if (D == 3)
    filter(lanes, 3, (uint32_t)M, factor, pixels, neighbours, count, slabs, values, base, result, work);
  else
    filter(lanes, 6, (uint32_t)M, factor, pixels, neighbours, count, slabs, values, base, result, work);
}

/* result (N, lanes) = base (N, lanes) + factor x the filtered values (N, lanes); base may be the result. neighbours (D, M, 2) and
   slabs (count+1,) uint32 as of lattice.c, and of the pixels, in groups: starts (count+1,) and order (N,) uint32,
   corners (N, D) int32, weights (N, D). work: 1 + BUFFERS x the longest slab rows. */
void LOOP(add_filtered)(int64_t lanes, int64_t D, int64_t M, float factor, const uint32_t *starts, const uint32_t *order,
                        const int32_t *corners, const float *weights, const uint32_t *neighbours, int64_t count,
                        const uint32_t *slabs, const float *values, const float *base, float *result, float *work) {
  Pixels pixels = {starts, order, corners, weights};
  BY_LANES(lanes, filter_by_lanes, D, M, factor, pixels, neighbours, count, slabs, values, base, result, work)
}
