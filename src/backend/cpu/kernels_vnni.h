/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_vnni.h - words of kernels_int8.h for instructions that add four products of an unsigned
 * and a signed byte to a 32-bit sum, without saturation: rows are unsigned. */
#ifndef WAN_BACKEND_CPU_KERNELS_VNNI_H
#define WAN_BACKEND_CPU_KERNELS_VNNI_H

enum { WORDS = 8, OFFSET = 128 };
#define UNROLL_WORDS UNROLLED

WORD void put_codes(char *to, const int8_t *code) {
    __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)code);
    _mm256_storeu_si256((__m256i *)(void *)to, _mm256_xor_si256(q, _mm256_set1_epi8(-128)));
}

#endif
