/* Bilinear resizing of a window of a photo (resize.py). */
#include "loops.h"

/* source (h, w, 3), uint8 where `bytes`, else float; rows y0, y1 int64 and their weights (n,), columns x0, x1 int64 and theirs (m,) →
   `result` (3, n, m) of source / divisor. */
INLINE void resize(int bytes, int64_t w, int64_t n, int64_t m, const void *source, const int64_t *y0, const int64_t *y1,
                   const float *top, const float *bottom, const int64_t *x0, const int64_t *x1, const float *left,
                   const float *right, float divisor, float *result) {
#define AT(y, x) ((bytes ? (float)((const uint8_t *)source)[((y) * w + (x)) * 3 + c] : ((const float *)source)[((y) * w + (x)) * 3 + c]) / divisor)
  for (int64_t y = 0; y < n; y++)
    for (int64_t x = 0; x < m; x++) {
      float a = top[y] * left[x], b = top[y] * right[x], d = bottom[y] * left[x], e = bottom[y] * right[x];
      for (int64_t c = 0; c < 3; c++) {
        /* A product of two floats is exact as a double, so a sum there, rounded to float, is a fused one. */
        float total = AT(y0[y], x1[x]) * b;
        total = (float)((double)AT(y0[y], x0[x]) * (double)a + (double)total);
        total = (float)((double)AT(y1[y], x0[x]) * (double)d + (double)total);
        total = (float)((double)AT(y1[y], x1[x]) * (double)e + (double)total);
        result[(c * n + y) * m + x] = total;
      }
    }
#undef AT
}

void LOOP(resize)(int64_t bytes, int64_t w, int64_t n, int64_t m, const void *source, const int64_t *y0, const int64_t *y1,
                  const float *top, const float *bottom, const int64_t *x0, const int64_t *x1, const float *left,
                  const float *right, float divisor, float *result) {
  if (bytes)
    resize(1, w, n, m, source, y0, y1, top, bottom, x0, x1, left, right, divisor, result);
  else
    resize(0, w, n, m, source, y0, y1, top, bottom, x0, x1, left, right, divisor, result);
}
