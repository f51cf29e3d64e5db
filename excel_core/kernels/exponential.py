"""e^x for the loops over pixels: products that the compiler makes vector code of."""

import numpy as np

from excel_core.kernels import compiled

__all__ = ["exponential"]

MIN_EXPONENT = np.float32(-46)  # below, e^x is taken as 0: products of values under 1e-20 are denormal, and slow


@compiled
def exponential(x: np.float32) -> np.float32:
    """x ≤ 88 → e^x, to 1e-7 of its value, and 0 where x < MIN_EXPONENT. A few products, which become vector code; a call of the
    C library does not.

    x = n log 2 + r with |r| ≤ log(2) / 2, so e^x = 2^n e^r. e^r is the polynomial of Cephes' expf (Moshier).
    """
    bounded = max(x, MIN_EXPONENT)
    n = np.rint(bounded * np.float32(1.4426950408889634))
    # log 2 is subtracted in two parts, the first with zeros at its end, so that r is exact.
    r = bounded - n * np.float32(0.693145751953125) - n * np.float32(1.428606820309417e-06)
    series = np.float32(1.9875691500e-4)
    series = series * r + np.float32(1.3981999507e-3)
    series = series * r + np.float32(8.3334519073e-3)
    series = series * r + np.float32(4.1665795894e-2)
    series = series * r + np.float32(1.6666665459e-1)
    series = series * r + np.float32(5.0000001201e-1)
    # 2^n from its bits: the exponent of a float32 is biased by 127 and starts at bit 23.
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    value = (series * r * r + r + np.float32(1)) * power
    return value if x >= MIN_EXPONENT else np.float32(0)
