"""e^x in float32 as a few products, which become vector code, as a call of the C library does not."""

import numpy as np

from excel_core.kernels import compiled

__all__ = ["exponential"]

LOWEST = np.float32(-46)  # below, e^x is taken as 0: products of values under 1e-20 are denormal, and slow


@compiled
def exponential(x: np.float32) -> np.float32:
    """x ≤ 88 → e^x to 1e-7 of its value, 0 where x < LOWEST.

    x = n log 2 + r with |r| ≤ log(2) / 2, so e^x = 2^n e^r; of e^r the polynomial of Cephes' expf (Moshier), and 2^n is put
    together from its bits. log 2 is subtracted in two parts, the first with zeros at its end, so that r is exact.
    """
    bounded = max(x, LOWEST)
    n = np.rint(bounded * np.float32(1.4426950408889634))
    r = bounded - n * np.float32(0.693145751953125) - n * np.float32(1.428606820309417e-06)
    series = np.float32(1.9875691500e-4)
    series = series * r + np.float32(1.3981999507e-3)
    series = series * r + np.float32(8.3334519073e-3)
    series = series * r + np.float32(4.1665795894e-2)
    series = series * r + np.float32(1.6666665459e-1)
    series = series * r + np.float32(5.0000001201e-1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    value = (series * r * r + r + np.float32(1)) * power
    return value if x >= LOWEST else np.float32(0)
