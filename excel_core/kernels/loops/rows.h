/* Rows of `lanes` values: of a pixel or a corner, side by side. What is written for any number of lanes is compiled for the common
   ones as well, so that rows are whole vectors in registers. */
#ifndef EXCEL_ROWS_H
#define EXCEL_ROWS_H

#include "loops.h"

#define CACHE_LINE 64

/* NumPy's arrays are not aligned to vectors. */
typedef float Floats4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Floats8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Floats16 __attribute__((vector_size(64), aligned(4), may_alias));

/* STATEMENT(Vector, l) for the vectors of a row, each of which begins at lane l: as wide as the processor has them. */
#if defined(__AVX512F__)
#define WIDE_VECTORS(STATEMENT) for (; l + 16 <= lanes; l += 16) STATEMENT(Floats16, l) if (l + 8 <= lanes) { STATEMENT(Floats8, l) l += 8; }
#elif defined(__AVX__)
#define WIDE_VECTORS(STATEMENT) for (; l + 8 <= lanes; l += 8) STATEMENT(Floats8, l)
#else
#define WIDE_VECTORS(STATEMENT)
#endif
#define ALL_VECTORS(STATEMENT)                            \
  {                                                       \
    int l = 0;                                            \
    WIDE_VECTORS(STATEMENT)                               \
    for (; l + 4 <= lanes; l += 4) STATEMENT(Floats4, l)  \
    for (; l < lanes; l++) STATEMENT(float, l)            \
  }
typedef int32_t Ints4 __attribute__((vector_size(16), aligned(4), may_alias));

INLINE Floats4 larger(Floats4 a, Floats4 b) {
  Ints4 is_larger = a > b;
  return (Floats4)(((Ints4)a & is_larger) | ((Ints4)b & ~is_larger));
}

#define AT(Vector, row, l) (*(Vector *)((row) + (l)))

/* `function` of (lanes, …), with the number of lanes as a constant where it is small, or a common one. */
#define BY_FEW_LANES(lanes, function, ...)          \
  switch (lanes) {                                  \
    case 1: function(1, __VA_ARGS__); break;        \
    case 2: function(2, __VA_ARGS__); break;        \
    case 3: function(3, __VA_ARGS__); break;        \
    case 4: function(4, __VA_ARGS__); break;        \
    default: function((int)(lanes), __VA_ARGS__);   \
  }
#define BY_LANES(lanes, function, ...)              \
  switch (lanes) {                                  \
    case 8: function(8, __VA_ARGS__); break;        \
    case 12: function(12, __VA_ARGS__); break;      \
    case 16: function(16, __VA_ARGS__); break;      \
    case 20: function(20, __VA_ARGS__); break;      \
    default: BY_FEW_LANES(lanes, function, __VA_ARGS__) \
  }

INLINE void fetch_row(int lanes, const float *row) {
  for (size_t byte = 0; byte < lanes * sizeof *row; byte += CACHE_LINE) __builtin_prefetch((const char *)row + byte);
}

#endif
