/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_int8_x86.h - words of kernels_int8.h that all x86 sets share. */
#ifndef WAN_BACKEND_CPU_KERNELS_INT8_X86_H
#define WAN_BACKEND_CPU_KERNELS_INT8_X86_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

WORD float half_float(uint16_t h) {
    return _cvtsh_ss(h);
}

/* The largest of eight without a sign. */
WORD uint32_t largest(__m256i x) {
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* Bits of numbers without a sign are in the order of the numbers, NaN last. */
WORD float quantise(int8_t *code, const float *x) {
    __m256i top = _mm256_setzero_si256(), q[4];
    for (int i = 0; i < 4; i++) {
        __m256i bits = _mm256_castps_si256(_mm256_loadu_ps(x + 8 * i));
        top = _mm256_max_epu32(top, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    uint32_t bits = largest(top);
    float most, scale = bits >= 0x7f800000 ? NAN : 0;
    memcpy(&most, &bits, sizeof most);
    if (!(most >= 0x1p-100f) || bits >= 0x7f800000) {
        memset(code, 0, 32);
        return scale;
    }
    for (int i = 0; i < 4; i++)
        q[i] = _mm256_cvtps_epi32(
            _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(127 / most)));
    __m256i low = _mm256_packs_epi32(q[0], q[1]), high = _mm256_packs_epi32(q[2], q[3]);
    /* Each pack works on the halves of a register; now fours of codes go where they belong. */
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i all = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
    _mm256_storeu_si256((__m256i *)(void *)code, all);
    return most / 127;
}

#endif
