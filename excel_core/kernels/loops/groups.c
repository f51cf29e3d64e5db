/* A lattice's pixels in groups, as the filter goes through them (lattice.py, filter.c). */
#include "loops.h"

/* Group the pixels by the first of the two slabs that their corners lie in, in the picture's order within a group: corners (N, D)
   uint32 and weights (N, D) of the picture, slabs (count+1,) → `starts` (count+1,) of the groups, `order` (N,), where each pixel is in
   the picture, uint32, and in that order weights and corners, these in rows from the first of the group's slab as filter.c holds
   them: in a ring of slabs with room for the longest. 0 where memory is not enough. */
int64_t LOOP(group_pixels)(int64_t D, int64_t N, int64_t count, const uint32_t *slabs, const uint32_t *corners, const float *weights,
                           uint32_t *starts, uint32_t *order, int32_t *grouped_corners, float *grouped_weights) {
  uint32_t *slab_of = malloc((slabs[count] + 1) * sizeof *slab_of), *group_of = malloc((N + 1) * sizeof *group_of);
  int enough = slab_of && group_of;
  int64_t longest = 0, ring = RING(D);
  for (int64_t s = 0; s < count; s++) longest = MAX(longest, slabs[s + 1] - slabs[s]);
  for (int64_t s = 0; enough && s < count; s++)
    for (uint32_t i = slabs[s]; i < slabs[s + 1]; i++) slab_of[i] = (uint32_t)s;
  if (enough) {
    memset(starts, 0, (count + 1) * sizeof *starts);
    for (int64_t x = 0; x < N; x++) {
      uint32_t least = corners[x * D]; /* corners are sorted by slab */
      for (int64_t j = 1; j < D; j++) least = MIN(least, corners[x * D + j]);
      group_of[x] = slab_of[least];
      if (group_of[x] + 1 < count) starts[group_of[x] + 2]++; /* a group's place, one further on: it moves on as it is filled */
    }
    for (int64_t s = 2; s <= count; s++) starts[s] += starts[s - 1];
    for (int64_t x = 0; x < N; x++) {
      uint32_t group = group_of[x], at = starts[group + 1]++, edge = slabs[group + 1];
      int64_t next = (group % ring == ring - 1 ? 1 - ring : 1) * longest; /* rows from this slab to the one after it */
      order[at] = (uint32_t)x;
      for (int64_t j = 0; j < D; j++) {
        uint32_t corner = corners[x * D + j];
        grouped_corners[at * D + j] = (int32_t)(corner < edge ? corner - slabs[group] : next + (corner - edge));
      }
      memcpy(grouped_weights + at * D, weights + x * D, D * sizeof *weights);
    }
  }
  free(slab_of), free(group_of);
  return enough;
}
