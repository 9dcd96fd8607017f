/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_madd.h - words of kernels_int8.h for instructions that add two products of 16-bit
 * numbers: codes are widened, so that nothing can saturate. */
#ifndef WAN_BACKEND_CPU_KERNELS_MADD_H
#define WAN_BACKEND_CPU_KERNELS_MADD_H

enum { WORDS = 16, OFFSET = 0 };
#define UNROLL_WORDS UNROLLED_BY_4 /* 8 at once take too many of 16 registers */

WORD void put_codes(char *to, const int8_t *code) {
    for (int i = 0; i < 2; i++) {
        __m128i q = _mm_loadu_si128((const __m128i *)(const void *)(code + 16 * i));
        _mm256_storeu_si256((__m256i *)(void *)(to + 32 * i), _mm256_cvtepi8_epi16(q));
    }
}

#endif
