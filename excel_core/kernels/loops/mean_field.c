/* Mean-field steps over lattices (mean_field.py). The first of K labels has no lane: its logit is the rest of a known sum. */
#include "rows.h"

enum { AHEAD = 6 };           /* pixels whose corners the processor fetches meanwhile */
#define BELOW_LOGITS -1e30f   /* lower than any logit */

/* A Gaussian of the CRF: its lattice's corners (N, D) uint32 and weights (N, D), the factor of what is read, the blurred grid
   (M, lanes) to read from (NULL: none), and one of zeros to spread the new probabilities on (NULL: not wanted). */
typedef struct {
  int64_t D;
  const uint32_t *corners;
  const float *weights;
  const float *grid;
  float *next_grid;
  float factor;
} Term;

INLINE void fetch_pixel(int lanes, int64_t count, const Term *terms, int64_t i) {
  for (int64_t t = 0; t < count; t++)
    for (int j = 0; j < terms[t].D; j++) {
      size_t at = (size_t)terms[t].corners[i * terms[t].D + j] * lanes;
      if (terms[t].grid) fetch_row(lanes, terms[t].grid + at);
      if (terms[t].next_grid) fetch_row(lanes, terms[t].next_grid + at);
    }
}

/* Logits x (n, lanes) of all labels but the first, `others` of them, and the sums (n,) of all logits → their probabilities x, and
   `first` (n,) of the first label: for fewer than 4 lanes, pixel beside pixel. */
INLINE void softmax_of_few(int lanes, int n, const float *sums, float *x, float *first) {
  float highest[CHUNK], share[CHUNK];
  for (int i = 0; i < n; i++) first[i] = sums[i], highest[i] = BELOW_LOGITS;
  for (int k = 0; k < lanes; k++)
    for (int i = 0; i < n; i++) first[i] -= x[i * lanes + k], highest[i] = MAX(x[i * lanes + k], highest[i]);
  for (int i = 0; i < n; i++) highest[i] = MAX(first[i], highest[i]), first[i] = exponential(first[i] - highest[i]);
  for (int i = 0; i < n; i++)
    for (int k = 0; k < lanes; k++) x[i * lanes + k] -= highest[i];
  for (int i = 0; i < n * lanes; i++) x[i] = exponential(x[i]);
  for (int i = 0; i < n; i++) share[i] = first[i];
  for (int k = 0; k < lanes; k++)
    for (int i = 0; i < n; i++) share[i] += x[i * lanes + k];
  for (int i = 0; i < n; i++) share[i] = 1 / share[i], first[i] *= share[i];
  for (int i = 0; i < n; i++)
    for (int k = 0; k < lanes; k++) x[i * lanes + k] *= share[i];
}

/* The same for a multiple of 4 lanes, vector beside vector. A lane without a label has logit 0, and gets 0. */
INLINE void softmax_of_many(int lanes, int others, int n, const float *sums, float *x, float *first) {
  Floats4 below = {0}, is_label = {0};
  for (int j = 0; j < 4; j++) below[j] = lanes - 4 + j < others ? 0 : BELOW_LOGITS, is_label[j] = lanes - 4 + j < others;
  for (int i = 0; i < n; i++) {
    float *row = x + i * lanes;
    Floats4 last = AT(Floats4, row, lanes - 4), sum = last, most = last + below;
    for (int l = 0; l < lanes - 4; l += 4) sum += AT(Floats4, row, l), most = larger(AT(Floats4, row, l), most);
    float logit = sums[i] - ((sum[0] + sum[1]) + (sum[2] + sum[3]));
    float highest = MAX(logit, MAX(MAX(most[0], most[1]), MAX(most[2], most[3])));
    first[i] = logit - highest;
    for (int k = 0; k < lanes; k++) row[k] -= highest;
  }
  for (int i = 0; i < n; i++) first[i] = exponential(first[i]);
  for (int i = 0; i < n * lanes; i++) x[i] = exponential(x[i]);
  for (int i = 0; i < n; i++) {
    float *row = x + i * lanes;
    Floats4 sum = AT(Floats4, row, lanes - 4) *= is_label;
    for (int l = 0; l < lanes - 4; l += 4) sum += AT(Floats4, row, l);
    float share = 1 / (first[i] + ((sum[0] + sum[1]) + (sum[2] + sum[3])));
    first[i] *= share;
    for (int k = 0; k < lanes; k++) row[k] *= share;
  }
}

INLINE void step(int lanes, int others, int64_t N, const float *start, const float *sums, int64_t count, const Term *terms,
                 float *result) {
  float x[CHUNK * lanes], first[CHUNK];
  for (int64_t from = 0; from < N; from += CHUNK) {
    int n = (int)MIN(CHUNK, N - from);
    memcpy(x, start + from * lanes, (size_t)n * lanes * sizeof *x);
    for (int i = 0; i < n; i++) {
      if (from + i + AHEAD < N) fetch_pixel(lanes, count, terms, from + i + AHEAD);
      for (int64_t t = 0; t < count; t++) {
        const Term *term = terms + t;
        int64_t at = (from + i) * term->D;
        if (!term->grid) continue;
        if (term->D == 3) read_row(lanes, 3, term->factor, term->corners + at, term->weights + at, term->grid, x + i * lanes);
        else read_row(lanes, 6, term->factor, term->corners + at, term->weights + at, term->grid, x + i * lanes);
      }
    }
    if (lanes < 4)
      softmax_of_few(lanes, n, sums + from, x, first);
    else
      softmax_of_many(lanes, others, n, sums + from, x, first);
    for (int i = 0; i < n; i++)
      for (int64_t t = 0; t < count; t++) {
        const Term *term = terms + t;
        int64_t at = (from + i) * term->D;
        if (!term->next_grid) continue;
        if (term->D == 3) spread_row(lanes, 3, term->corners + at, term->weights + at, x + i * lanes, term->next_grid);
        else spread_row(lanes, 6, term->corners + at, term->weights + at, x + i * lanes, term->next_grid);
      }
    if (!result) continue;
    memcpy(result + from, first, n * sizeof *first);
    for (int k = 0; k < others; k++)
      for (int i = 0; i < n; i++) result[(k + 1) * N + from + i] = x[i * lanes + k];
  }
}

/* Q <- softmax(start + what is read of all terms), of start (N, lanes) and the sums (N,) of all labels' logits. Q is spread on the
   terms' next grids, and written to the result (1 + others, N) unless that is NULL. */
void LOOP(mean_field_step)(int64_t lanes, int64_t others, int64_t N, const float *start, const float *sums, int64_t count,
                           const Term *terms, float *result) {
  BY_LANES(lanes, step, (int)others, N, start, sums, count, terms, result)
}
