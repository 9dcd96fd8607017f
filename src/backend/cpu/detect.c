/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

unsigned wan_cpu_detect(void) {
    unsigned have = CPU_SCALAR;
    __builtin_cpu_init();
    /* The compiler's test of avx2 includes whether the system saves the wide registers; f16c needs
     * no more. */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        have |= CPU_AVX2;
    if ((have & CPU_AVX2) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        have |= CPU_AVX512;
    return have;
}
#else
unsigned wan_cpu_detect(void) {
    return CPU_SCALAR;
}
#endif
