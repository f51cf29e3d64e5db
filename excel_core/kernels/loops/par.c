/* Pixel-adaptive refinement of one image (par.py): affinities of pixels to their neighbours, and a diffusion step.

   Images and maps are padded by `reach` (R) pixels on all four sides, so that every neighbour exists. Rows are computed one by one,
   neighbour by neighbour, along x. So the values of a row stay in the cache, and the inner loops are vector code. */
#include "loops.h"

/* logits (n, W) → their softmax over n, plus offset (n,), in place; highest and total (W,) are work space. */
static void softmax(int64_t n, int64_t W, float *restrict logits, const float *offset, float *restrict highest,
                    float *restrict total) {
  for (int64_t x = 0; x < W; x++) highest[x] = logits[x], total[x] = 0;
  for (int64_t i = 1; i < n; i++)
    for (int64_t x = 0; x < W; x++) highest[x] = MAX(logits[i * W + x], highest[x]);
  for (int64_t i = 0; i < n; i++)
    for (int64_t x = 0; x < W; x++) {
      logits[i * W + x] = exponential(logits[i * W + x] - highest[x]);
      total[x] += logits[i * W + x];
    }
  for (int64_t i = 0; i < n; i++)
    for (int64_t x = 0; x < W; x++) logits[i * W + x] = logits[i * W + x] / total[x] + offset[i];
}

/* padded image (C, H+2R, W+2R), offsets (n, 2) int64 as dy, dx, position (n,), work (2, W) → rows first to last-1 of `result`
   (H, n, W): softmax_n(-mean_ch (|I_n - I| / (std_n I + 1e-8) / width)^2) + position, with the unbiased std over the n
   neighbours. */
void LOOP(affinities)(int64_t C, int64_t H, int64_t W, int64_t n, int64_t reach, const float *padded, const int64_t *offsets,
                      float width, const float *position, float *result, float *restrict work, int64_t first, int64_t last) {
  int64_t stride = W + 2 * reach, plane = (H + 2 * reach) * stride;
  float *restrict mean = work, *restrict factor = work + W;
  float share = 1.0f / n, unbiased = 1.0f / (n - 1);
  float unit = (float)(width * sqrt((double)C)); /* the root of the number of channels turns the sum over channels into their mean */
  for (int64_t y = first; y < last; y++) {
    float *restrict row_result = result + y * n * W;
    memset(row_result, 0, n * W * sizeof *row_result);
    for (int64_t c = 0; c < C; c++) {
      const float *restrict centre = padded + c * plane + (y + reach) * stride + reach;
      for (int64_t x = 0; x < W; x++) mean[x] = 0, factor[x] = 0;
      for (int64_t i = 0; i < n; i++) {
        const float *restrict row = centre + offsets[2 * i] * stride + offsets[2 * i + 1];
        for (int64_t x = 0; x < W; x++) mean[x] += row[x] * share;
      }
      for (int64_t i = 0; i < n; i++) {
        const float *restrict row = centre + offsets[2 * i] * stride + offsets[2 * i + 1];
        for (int64_t x = 0; x < W; x++) {
          float off_mean = row[x] - mean[x];
          factor[x] += off_mean * off_mean;
        }
      }
      for (int64_t x = 0; x < W; x++) factor[x] = 1.0f / ((sqrtf(factor[x] * unbiased) + 1e-8f) * unit);
      for (int64_t i = 0; i < n; i++) {
        const float *restrict row = centre + offsets[2 * i] * stride + offsets[2 * i + 1];
        float *restrict distance = row_result + i * W;
        for (int64_t x = 0; x < W; x++) {
          float step = (row[x] - centre[x]) * factor[x];
          distance[x] -= step * step;
        }
      }
    }
    softmax(n, W, row_result, position, mean, factor);
  }
}

/* maps (K, H+2R, W+2R), affinity (H, 8 x dilations, W) in the order of cams/par.py's NEIGHBOURS, dilations int64 → rows
   first to last-1 of `result`, padded as `maps` is: each pixel is the sum of its neighbours, weighted by affinity. */
void LOOP(diffuse)(int64_t K, int64_t H, int64_t W, int64_t count, int64_t reach, const float *maps, const float *affinity,
                   const int64_t *dilations, float *result, int64_t first, int64_t last) {
  int64_t stride = W + 2 * reach, plane = (H + 2 * reach) * stride;
  for (int64_t y = first; y < last; y++) {
    const float *weights = affinity + y * 8 * count * W;
    int64_t at = (y + reach) * stride + reach;
    for (int64_t k = 0; k < K; k++) memset(result + k * plane + at, 0, W * sizeof *result);
    for (int64_t i = 0; i < count; i++) {
      int64_t d = dilations[i];
      for (int64_t k = 0; k < K; k++) {
        float *restrict row = result + k * plane + at;
        for (int64_t j = 0; j < 3; j++) { /* above, beside, below */
          const float *restrict middle = maps + k * plane + at + (j - 1) * d * stride;
          const float *restrict left = middle - d, *restrict right = middle + d;
          if (j == 1) {
            const float *restrict p = weights + (8 * i + 3) * W, *restrict q = p + W;
            for (int64_t x = 0; x < W; x++) row[x] += p[x] * left[x] + q[x] * right[x];
          } else {
            const float *restrict p = weights + (8 * i + (j ? 5 : 0)) * W, *restrict q = p + W, *restrict r = q + W;
            for (int64_t x = 0; x < W; x++) row[x] += p[x] * left[x] + q[x] * middle[x] + r[x] * right[x];
          }
        }
      }
    }
    /* The row's padding. The first and last row are repeated as the padding above and below. */
    for (int64_t k = 0; k < K; k++) {
      float *row = result + k * plane + at;
      for (int64_t x = 1; x <= reach; x++) row[-x] = row[0], row[W - 1 + x] = row[W - 1];
      for (int64_t beside = 1; y == 0 && beside <= reach; beside++)
        memcpy(row - reach - beside * stride, row - reach, stride * sizeof *row);
      for (int64_t beside = 1; y == H - 1 && beside <= reach; beside++)
        memcpy(row - reach + beside * stride, row - reach, stride * sizeof *row);
    }
  }
}
