/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/kernels.h"

/* A Xeon (Sapphire Rapids) with AVX512-BF16 alone: 55 to 69 GFLOP for a processor second in bf16,
 * 85 to 108 in f32; AMX, where it may be used, takes its place. */
unsigned wan_cpu_weigh_bf16(unsigned have, bool intel) {
    bool slow = intel && (have & CPU_BF16) && !(have & CPU_AMX);
    return slow ? have | CPU_SLOW_BF16 : have;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* The system saves tiles at all, and for this process once it has been asked to: they make the
 * frames of signals larger, so it refuses where a thread has too small a stack for these. */
static bool may_use_tiles(void) {
    enum { BOTH = 1 << 17 | 1 << 18, ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return false;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & BOTH) == BOTH && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

/* What compilers' tests know by too many names, or not at all. */
static unsigned detect_narrow(unsigned have) {
    enum { VNNI = 1 << 11, AVXVNNI = 1 << 4, BF16 = 1 << 5 };
    enum { AMX = 1 << 22 | 1 << 24, AMX_INT8 = 1 << 25 };
    unsigned leaves, b, c, tiles, d, more = 0;
    if (!__get_cpuid_count(7, 0, &leaves, &b, &c, &tiles))
        return have;
    if ((have & CPU_AVX512) && (c & VNNI))
        have |= CPU_VNNI;
    if (leaves >= 1 && __get_cpuid_count(7, 1, &more, &b, &c, &d)) {
        if ((have & CPU_AVX2) && (more & AVXVNNI))
            have |= CPU_AVXVNNI;
        if ((have & CPU_AVX512) && (more & BF16))
            have |= CPU_BF16;
    }
    if ((have & CPU_BF16) && (tiles & AMX) == AMX && may_use_tiles())
        have |= CPU_AMX | (tiles & AMX_INT8 ? CPU_AMX_INT8 : 0);
    return wan_cpu_weigh_bf16(have, __builtin_cpu_is("intel"));
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
    unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    if (!(first & HWCAP_ASIMD))
        return CPU_SCALAR;
    unsigned have = CPU_NEON;
    if (first & HWCAP_ASIMDDP)
        have |= CPU_NEON_DOT;
    if (second & HWCAP2_I8MM)
        have |= CPU_NEON_I8MM;
    if (second & HWCAP2_BF16)
        have |= CPU_NEON_BF16;
    return have;
}
#else
unsigned wan_cpu_detect(void) {
    return CPU_SCALAR;
}
#endif
