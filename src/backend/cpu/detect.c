/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* What compilers' tests know by too many names, or not at all. */
static unsigned detect_narrow(unsigned have) {
    enum { VNNI = 1 << 11, AVXVNNI = 1 << 4, BF16 = 1 << 5 };
    unsigned leaves, b, c, d, more = 0;
    if (!__get_cpuid_count(7, 0, &leaves, &b, &c, &d))
        return have;
    if ((have & CPU_AVX512) && (c & VNNI))
        have |= CPU_VNNI;
    if (leaves >= 1 && __get_cpuid_count(7, 1, &more, &b, &c, &d)) {
        if ((have & CPU_AVX2) && (more & AVXVNNI))
            have |= CPU_AVXVNNI;
        if ((have & CPU_AVX512) && (more & BF16))
            have |= CPU_BF16;
    }
    return have;
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
    return detect_narrow(have);
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

unsigned wan_cpu_detect(void) {
    return getauxval(AT_HWCAP) & HWCAP_ASIMD ? CPU_NEON : CPU_SCALAR;
}
#else
unsigned wan_cpu_detect(void) {
    return CPU_SCALAR;
}
#endif
