/* What all loops share. Arrays are C-contiguous and float32 unless said otherwise.

   Every file is compiled once per level of the processor (kernels/build.py), so its functions are named by LOOP(). Products and sums
   may be fused and nothing else is reordered, so levels differ in the last bits alone. */
#ifndef EXCEL_LOOPS_H
#define EXCEL_LOOPS_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define JOIN(name, level) name##_##level
#define WITH_LEVEL(name, level) JOIN(name, level)
#define LOOP(name) WITH_LEVEL(name, LEVEL)
#define INLINE static inline __attribute__((always_inline)) /* so that a number that is constant at the call is so inside */
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Which u_j is the leading digit of a lattice's corners (lattice.c). Axes `leading` and `leading` + 1 alone change it, by one. Of
   positions, u_0 depends on x alone, so that pixels of one value are columns of the picture; of positions and colours, u_2
   depends on the colour most of all. */
#define LEADING(D) ((D) == 3 ? 0 : 2)
#define RING(D) ((D) == 3 ? 4 : 2) /* slabs that are held while pixels are spread on them, or read from them (filter.c) */

#define CHUNK 64             /* pixels that are worked on side by side */
#define MIN_EXPONENT -46.0f  /* below, e^x is taken as 0: products of values under 1e-20 are denormal, and slow */
#define TO_WHOLE 12582912.0f /* 1.5 x 2^23: adding and subtracting it rounds a float of less than 2^22 to a whole number */

/* x <= 88 → e^x, to 1e-7 of its value, and 0 where x < MIN_EXPONENT. A few products, which become vector code; a call of the C
   library does not.

   x = n log 2 + r with |r| <= log(2) / 2, so e^x = 2^n e^r. e^r is the polynomial of Cephes' expf (Moshier). log 2 is subtracted
   in two parts, the first with zeros at its end, so that r is exact. 2^n comes from its bits: the exponent of a float is biased by
   127 and starts at bit 23. */
INLINE float exponential(float x) {
  float bounded = MAX(x, MIN_EXPONENT);
  float n = (bounded * 1.4426950408889634f + TO_WHOLE) - TO_WHOLE;
  float r = bounded - n * 0.693145751953125f - n * 1.428606820309417e-06f;
  float series = 1.9875691500e-4f;
  series = series * r + 1.3981999507e-3f;
  series = series * r + 8.3334519073e-3f;
  series = series * r + 4.1665795894e-2f;
  series = series * r + 1.6666665459e-1f;
  series = series * r + 5.0000001201e-1f;
  union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
  float value = (series * r * r + r + 1.0f) * power.value;
  return x >= MIN_EXPONENT ? value : 0.0f;
}

#endif
