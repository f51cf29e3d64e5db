/* Which of the levels that the loops are compiled for this processor has (kernels/build.py). */
#include <stdint.h>

#ifndef SOURCE_DIGEST
#error "SOURCE_DIGEST is to be the digest of the sources"
#endif

const char *excel_source_digest(void) { return SOURCE_DIGEST; }

int64_t excel_level(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512bw"))
    return 1;
  return 2;
#else
  return 0;
#endif
}
