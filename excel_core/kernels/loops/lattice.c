/* Which corners of the permutohedral lattice the pixels of an image have, by which weights, and which corners are neighbours
   (lattice_corners.py).

   A corner's coordinates c_0 … c_d are equal modulo D = d+1 and sum to 0. So u_j = (c_j - c_(j+1)) / D are d whole numbers that
   say which corner it is, and each depends on two features at most, so that few values of it occur. A corner's key is its u_j as
   the digits of one number. A step along an axis adds a constant to the key, and the same one everywhere: where corners are
   sorted by their keys, all neighbours along an axis are in that order as well, and lie as streams in memory. */
#include "loops.h"

#define EMPTY UINT32_MAX /* in the place of a corner: none */
#define MAX_D 6
#define SPARE 4       /* values that u_j may lie beyond those of the pixels: their simplices' corners, and a step */
#define SIDE_BY_SIDE 16 /* pixels whose least and greatest values are found at once */
#define DIGIT_BITS 11 /* of a key, sorted at once */
#define DIGITS (1 << DIGIT_BITS)

typedef struct {
  uint64_t key;
  uint32_t corner;
} Slot;

/* The corners found so far. `slots`: a table from keys to corners, a power of two of them. */
typedef struct {
  int64_t count, slots;
  int shift; /* of a hash to the number of its slot */
  Slot *table;
  uint64_t *keys;           /* of corners, in the order of the table; sorted at the end */
  uint64_t factors[MAX_D];  /* of c_i / D in the key */
  uint64_t start;           /* the key of c = 0 */
  uint64_t moves[MAX_D];    /* what a step along each axis adds to the key: one up along all axes, but d down along that one */
  uint64_t leading_weight;  /* of the leading digit */
  uint64_t end;             /* beyond all keys */
} Corners;

/* Feature i, from 1, is scaled by this, so that the lattice's own blur is that of a unit sigma. */
INLINE float scale_of(int i, int D) { return (float)(sqrt(2.0 / 3.0) * D / sqrt((i + 1.0) * i)); }

/* Weights of the digits, by the ranges of the features (d, N). 0 where keys would need more than 63 bits. */
static int choose_keys(int D, int64_t N, const float *features, Corners *found) {
  int d = D - 1, leading = LEADING(D);
  double low[MAX_D] = {0}, high[MAX_D] = {0}; /* of the scaled features, from 1 */
  for (int i = 1; i < D; i++) {
    const float *row = features + (i - 1) * N;
    float least = N ? row[0] : 0, most = least, leasts[SIDE_BY_SIDE], mosts[SIDE_BY_SIDE];
    for (int k = 0; k < SIDE_BY_SIDE; k++) leasts[k] = mosts[k] = least;
    int64_t x = 0;
    for (; x + SIDE_BY_SIDE <= N; x += SIDE_BY_SIDE)
      for (int k = 0; k < SIDE_BY_SIDE; k++) leasts[k] = MIN(row[x + k], leasts[k]), mosts[k] = MAX(row[x + k], mosts[k]);
    for (; x < N; x++) least = MIN(row[x], least), most = MAX(row[x], most);
    for (int k = 0; k < SIDE_BY_SIDE; k++) least = MIN(leasts[k], least), most = MAX(mosts[k], most);
    low[i] = (double)least * scale_of(i, D), high[i] = (double)most * scale_of(i, D);
  }
  uint64_t weights[MAX_D] = {0}, weight = 1;
  double bits = 0;
  found->start = 0;
  for (int k = d - 1; k >= 0; k--) { /* the leading digit last; before it, those that follow it up to the last, then the first ones */
    int j = (leading + k) % d;
    double least = ((j + 2) * low[j + 1] - j * high[j]) / D, most = ((j + 2) * high[j + 1] - j * low[j]) / D;
    double size = ceil(most) - floor(least) + 1 + 2 * SPARE;
    bits += log2(size);
    if (!(bits < 62)) return 0;
    weights[j] = weight;
    found->start -= weight * (uint64_t)((int64_t)floor(least) - SPARE);
    weight *= (uint64_t)size;
  }
  found->leading_weight = weights[leading];
  found->end = weight;
  for (int i = 0; i < D; i++) {
    uint64_t own = i < d ? weights[i] : 0, before = i > 0 ? weights[i - 1] : 0;
    found->factors[i] = own - before;
    found->moves[i] = before - own;
  }
  return 1;
}

/* Multiplying by 2^64 / golden ratio brings a key's differences to its top bits (Fibonacci hashing). */
INLINE uint64_t first_slot(const Corners *found, uint64_t key) { return key * 0x9E3779B97F4A7C15u >> found->shift; }

/* The slot that holds the corner with this key, or the empty one that it belongs in: linear probing. */
INLINE Slot *slot_of(const Corners *found, uint64_t key) {
  uint64_t slot = first_slot(found, key);
  while (found->table[slot].corner != EMPTY && found->table[slot].key != key) slot = (slot + 1) & (found->slots - 1);
  return found->table + slot;
}

/* Make room for `more` corners, the table at most half full → whether memory was enough. */
static int make_room(Corners *found, int64_t more) {
  if (found->slots >= 2 * (found->count + more)) return 1;
  Slot *before = found->table;
  int64_t slots = MAX(found->slots, 1024), slots_before = found->slots;
  while (slots < 2 * (found->count + more)) slots *= 2;
  uint64_t *keys = realloc(found->keys, slots / 2 * sizeof *keys);
  if (!keys) return 0;
  found->keys = keys;
  Slot *table = malloc(slots * sizeof *table);
  if (!table) return 0;
  found->table = table, found->slots = slots, found->shift = 64 - __builtin_ctzll((uint64_t)slots);
  for (int64_t i = 0; i < slots; i++) table[i].corner = EMPTY;
  for (int64_t i = 0; i < slots_before; i++)
    if (before[i].corner != EMPTY) *slot_of(found, before[i].key) = before[i];
  free(before);
  return 1;
}

/* Place n pixels on the plane whose D coordinates sum to 0; features (d, N), of which the first n count.

   Writes the key `first` (n,) of the first corner of each pixel's simplex; `part` (D, CHUNK), the distance from it along each
   axis in steps of the lattice, in [0, 1) but for a constant; and `rank` (D, CHUNK) of the axes by that distance, 0 the
   furthest. */
INLINE void place(int D, int64_t N, int n, const float *features, const Corners *found, float part[][CHUNK],
                  int32_t rank[][CHUNK], uint64_t *first) {
  float total[CHUNK];
  int32_t nearest[MAX_D][CHUNK], excess[CHUNK];
  for (int x = 0; x < n; x++) total[x] = 0, excess[x] = 0, first[x] = found->start;
  for (int i = D - 1; i > 0; i--) {
    const float *coordinate = features + (i - 1) * N;
    float scale = scale_of(i, D);
    for (int x = 0; x < n; x++) {
      float step = coordinate[x] * scale;
      part[i][x] = total[x] - (float)i * step;
      total[x] += step;
    }
  }
  for (int x = 0; x < n; x++) part[0][x] = total[x];
  for (int i = 0; i < D; i++) /* the nearest point whose coordinates are multiples of D need not lie on the plane */
    for (int x = 0; x < n; x++) {
      float multiple = (part[i][x] * (1.0f / D) + TO_WHOLE) - TO_WHOLE;
      nearest[i][x] = (int32_t)multiple;
      rank[i][x] = 0;
      part[i][x] -= multiple * D;
      excess[x] += (int32_t)multiple;
    }
  for (int i = 0; i < D - 1; i++)
    for (int j = i + 1; j < D; j++)
      for (int x = 0; x < n; x++) {
        int32_t behind = part[i][x] < part[j][x];
        rank[i][x] += behind;
        rank[j][x] += 1 - behind;
      }
  for (int i = 0; i < D; i++) /* move it back onto the plane, along the axes where that costs least */
    for (int x = 0; x < n; x++) {
      int32_t moved = rank[i][x] + excess[x];
      int32_t turn = (moved < 0) - (moved > D - 1);
      rank[i][x] = moved + turn * D;
      part[i][x] = (part[i][x] - (float)(turn * D)) * (1.0f / D);
      first[x] += found->factors[i] * (uint64_t)(int64_t)(nearest[i][x] + turn);
    }
}

/* Barycentric weights (n, D), the differences of the parts in falling order, and the keys (n, D) of the corners. */
INLINE void weigh(int D, int n, const Corners *found, float part[][CHUNK], int32_t rank[][CHUNK], const uint64_t *first,
                  float *weights, uint64_t keys[][MAX_D]) {
  for (int x = 0; x < n; x++) {
    float ordered[MAX_D], *weight = weights + x * D;
    uint64_t moves[MAX_D];
    for (int i = 0; i < D; i++) ordered[rank[i][x]] = part[i][x], moves[rank[i][x]] = found->moves[i];
    weight[0] = 1.0f + ordered[D - 1] - ordered[0];
    keys[x][0] = first[x];
    for (int j = 1; j < D; j++) {
      weight[j] = ordered[D - 1 - j] - ordered[D - j];
      keys[x][j] = keys[x][j - 1] + moves[D - j];
    }
  }
}

INLINE int find(int D, int64_t N, const float *features, int64_t limit, uint32_t *corners, float *weights, Corners *found) {
  enum { AHEAD = 6 }; /* pixels whose slots the processor fetches meanwhile */
  float part[MAX_D][CHUNK];
  int32_t rank[MAX_D][CHUNK];
  uint64_t first[CHUNK], keys[CHUNK][MAX_D];
  if (!make_room(found, N / 2)) return 0;
  for (int64_t from = 0; from < N && found->count <= limit; from += CHUNK) {
    int n = (int)MIN(CHUNK, N - from);
    if (!make_room(found, (int64_t)n * D)) return 0;
    place(D, N, n, features + from, found, part, rank, first);
    weigh(D, n, found, part, rank, first, weights + from * D, keys);
    for (int x = 0; x < n; x++) {
      uint32_t *own = corners + (from + x) * D;
      for (int j = 0; x + AHEAD < n && j < D; j++)
        if (keys[x + AHEAD][j] != keys[x + AHEAD - 1][j])
          __builtin_prefetch(found->table + first_slot(found, keys[x + AHEAD][j]));
      for (int j = 0; j < D; j++) {
        if (x > 0 && keys[x][j] == keys[x - 1][j]) { /* often: the pixel before has the same corner */
          own[j] = own[j - D];
          continue;
        }
        Slot *slot = slot_of(found, keys[x][j]);
        if (slot->corner == EMPTY) {
          slot->key = found->keys[found->count] = keys[x][j];
          slot->corner = (uint32_t)found->count++;
        }
        own[j] = slot->corner;
      }
    }
  }
  return 1;
}

/* Sort the corners by their keys, digit by digit, the lowest first, and number them anew in corners (count,). */
static int sort_corners(Corners *found, int64_t count, uint32_t *corners) {
  int64_t M = found->count;
  free(found->table);
  found->table = NULL;
  Slot *pairs = malloc(2 * M * sizeof *pairs), *others = pairs + M;
  uint32_t *place = malloc(M * sizeof *place);
  int enough = M == 0 || (pairs && place);
  for (int64_t i = 0; enough && i < M; i++) pairs[i] = (Slot){found->keys[i], (uint32_t)i};
  Slot *from = pairs, *to = others;
  for (int shift = 0; enough && shift < 64 && found->end >> shift; shift += DIGIT_BITS) {
    int64_t starts[DIGITS + 1] = {0};
    for (int64_t i = 0; i < M; i++) starts[(from[i].key >> shift & (DIGITS - 1)) + 1]++;
    for (int i = 0; i < DIGITS; i++) starts[i + 1] += starts[i];
    for (int64_t i = 0; i < M; i++) to[starts[from[i].key >> shift & (DIGITS - 1)]++] = from[i];
    Slot *swapped = from;
    from = to, to = swapped;
  }
  for (int64_t i = 0; enough && i < M; i++) found->keys[i] = from[i].key, place[from[i].corner] = (uint32_t)i;
  for (int64_t i = 0; enough && i < count; i++) corners[i] = place[corners[i]];
  free(pairs), free(place);
  return enough;
}

void LOOP(forget_corners)(Corners *found) { free(found->keys), free(found->table), free(found); }

/* features (d, N), in units of the Gaussian's sigma → `corners` (N, D) uint32 of the simplices that the pixels lie in, and
   barycentric `weights` (N, D). D is 3 or 6. To be freed by forget_corners. Where there are more than `limit` corners, it ends
   early. `problem`: 1 where memory is not enough, 2 where features lie too far apart for keys; then NULL. */
Corners *LOOP(find_corners)(int64_t D, int64_t N, const float *features, int64_t limit, uint32_t *corners, float *weights,
                            int64_t *problem) {
  Corners *found = calloc(1, sizeof *found);
  *problem = 1;
  if (!found) return NULL;
  if (!choose_keys((int)D, N, features, found))
    *problem = 2;
  else if ((D == 3 ? find(3, N, features, limit, corners, weights, found) : find(6, N, features, limit, corners, weights, found)) &&
           (found->count > limit || sort_corners(found, N * D, corners))) {
    *problem = 0;
    return found;
  }
  LOOP(forget_corners)(found);
  return NULL;
}

int64_t LOOP(count_corners)(const Corners *found) { return found->count; }

/* neighbours (D, M, 2) uint32 of each corner along each axis, M where there is none; `slabs` (up to 2M+1,) uint32: where in the
   order of corners each value of the leading digit begins, and the end. A value that no corner has, between those of corners, is
   an empty slab. → the number of slabs. */
int64_t LOOP(join_corners)(const Corners *found, int64_t D, uint32_t *neighbours, uint32_t *slabs) {
  int64_t M = found->count;
  const uint64_t *keys = found->keys;
  for (int64_t axis = 0; axis < D; axis++) {
    uint32_t(*pairs)[2] = (uint32_t(*)[2])(neighbours + axis * M * 2);
    uint64_t move = found->moves[axis];
    int64_t other = 0;
    for (int64_t i = 0; i < M; i++) {
      uint64_t wanted = keys[i] - move;
      pairs[i][0] = (uint32_t)M;
      if (wanted >= found->end) continue; /* below 0 */
      while (other < M && keys[other] < wanted) pairs[other++][1] = (uint32_t)M;
      if (other < M && keys[other] == wanted) pairs[i][0] = (uint32_t)other, pairs[other++][1] = (uint32_t)i;
    }
    while (other < M) pairs[other++][1] = (uint32_t)M;
  }
  int64_t count = 0;
  uint64_t value = 0;
  for (int64_t i = 0; i < M; i++) {
    uint64_t leading = keys[i] / found->leading_weight;
    if (i > 0 && leading == value) continue;
    if (i > 0 && leading > value + 1) slabs[count++] = (uint32_t)i;
    slabs[count++] = (uint32_t)i;
    value = leading;
  }
  slabs[count] = (uint32_t)M;
  return count;
}
