/* The softmax of mean-field steps (mean_field.py). The first of K labels has no lane: its logit is the rest of a known sum. */
#include "rows.h"

enum { COLUMNS = 16 }; /* of a picture that are turned into rows at a time */
#define BELOW_LOGITS -1e30f /* lower than any logit */

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

INLINE void softmax(int lanes, int others, int64_t N, const float *logits, const float *sums, float *rows, float *planes) {
  float x[CHUNK * lanes], first[CHUNK];
  for (int64_t from = 0; from < N; from += CHUNK) {
    int n = (int)MIN(CHUNK, N - from);
    memcpy(x, logits + from * lanes, (size_t)n * lanes * sizeof *x);
    if (lanes < 4)
      softmax_of_few(lanes, n, sums + from, x, first);
    else
      softmax_of_many(lanes, others, n, sums + from, x, first);
    if (rows) memcpy(rows + from * lanes, x, (size_t)n * lanes * sizeof *x);
    if (!planes) continue;
    memcpy(planes + from, first, n * sizeof *first);
    for (int k = 0; k < others; k++)
      for (int i = 0; i < n; i++) planes[(k + 1) * N + from + i] = x[i * lanes + k];
  }
}

/* Logits (N, lanes) of all labels but the first, `others` of them, and the sums (N,) of all labels' logits → probabilities: of the
   others to `rows` (N, lanes), of all to `planes` (1 + others, N); either may be NULL. */
void LOOP(softmax)(int64_t lanes, int64_t others, int64_t N, const float *logits, const float *sums, float *rows, float *planes) {
  BY_LANES(lanes, softmax, (int)others, N, logits, sums, rows, planes)
}

/* unary (K, H, W) energies → `rows` (W, H, lanes) of the logits of all labels but the first, a pixel's side by side and pixels column
   by column; lanes without a label are 0. `sums` (W, H) of all labels' logits. */
void LOOP(pixel_rows)(int64_t lanes, int64_t K, int64_t H, int64_t W, const float *unary, float *restrict rows,
                      float *restrict sums) {
  for (int64_t first = 0; first < W; first += COLUMNS)
    for (int64_t y = 0; y < H; y++) {
      int64_t n = MIN(COLUMNS, W - first);
      float sum[COLUMNS], *to = rows + (first * H + y) * lanes;
      const float *from = unary + y * W + first;
      for (int64_t x = 0; x < n; x++) sum[x] = from[x];
      for (int64_t k = 1; k < K; k++)
        for (int64_t x = 0; x < n; x++) {
          float energy = from[k * H * W + x];
          to[x * H * lanes + k - 1] = -energy;
          sum[x] += energy;
        }
      for (int64_t x = 0; x < n; x++) {
        for (int64_t k = K - 1; k < lanes; k++) to[x * H * lanes + k] = 0;
        sums[(first + x) * H + y] = -sum[x];
      }
    }
}
