/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_x86.h - what the files of x86 sets share: the words of kernels_unpack.h, for 16 codes in
 * 128 bits whatever the set's registers are, and the types that are unpacked 8 at a time. */
#ifndef WAN_BACKEND_CPU_KERNELS_X86_H
#define WAN_BACKEND_CPU_KERNELS_X86_H

#include <immintrin.h>
#include <stdint.h>

#include "tensor/quants.h"

#define X86_WORD static inline __attribute__((always_inline))

typedef __m128i codes;

X86_WORD codes c_load(const void *p) {
    return _mm_loadu_si128(p);
}

X86_WORD codes c_set(int x) {
    return _mm_set1_epi8((char)x);
}

X86_WORD codes c_or(codes a, codes b) {
    return _mm_or_si128(a, b);
}

X86_WORD codes c_sub(codes a, codes b) {
    return _mm_sub_epi8(a, b);
}

/* Bits cross from byte to byte in a shift of 16; the mask drops them. */
X86_WORD codes c_field(codes b, int shift, int mask) {
    return _mm_and_si128(_mm_srl_epi16(b, _mm_cvtsi32_si128(shift)), c_set(mask));
}

X86_WORD codes c_field_to(codes b, int shift, int mask, int to) {
    return _mm_slli_epi16(c_field(b, shift, mask), to);
}

X86_WORD codes c_nibbles(const void *p) {
    codes b = _mm_loadl_epi64(p);
    return _mm_unpacklo_epi8(c_field(b, 0, 15), c_field(b, 4, 15));
}

X86_WORD codes c_lookup(const int8_t table[16], codes index) {
    return _mm_shuffle_epi8(c_load(table), index);
}

X86_WORD codes c_where(unsigned bits, int x) {
    const __m128i each = _mm_set1_epi64x((int64_t)0x8040201008040201);
    const __m128i spread = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    __m128i b = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)bits), spread);
    b = _mm_cmpeq_epi8(_mm_and_si128(b, each), each);
    return _mm_and_si128(b, c_set(x));
}

/* The lowest 8 of those from `from` on: 0 or 8. */
X86_WORD codes c_from(codes c, int from) {
    return from ? _mm_unpackhi_epi64(c, c) : c;
}

/* 8-bit floats have a half's exponent (E5M2), or a half's of 2^-8 (E4M3). */
static void unpack_f8_e4m3(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    const __m128i low = _mm_set1_epi16(0x7f), infinite = _mm_set1_epi16(0x7c00);
    for (; n >= 8; n -= 8, dst += 8, from += 8) {
        __m128i b = _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)from));
        __m128i rest = _mm_and_si128(b, low), sign = _mm_slli_epi16(_mm_andnot_si128(low, b), 8);
        __m128i h = _mm_or_si128(sign, _mm_slli_epi16(rest, 7));
        h = _mm_or_si128(h, _mm_and_si128(_mm_cmpeq_epi16(rest, low), infinite)); /* NaN */
        _mm256_storeu_ps(dst, _mm256_mul_ps(_mm256_cvtph_ps(h), _mm256_set1_ps(256)));
    }
    wan_dequantise(WAN_F8_E4M3, dst, from, n);
}

static void unpack_f8_e5m2(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    for (; n >= 8; n -= 8, dst += 8, from += 8) {
        __m128i b = _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)from));
        _mm256_storeu_ps(dst, _mm256_cvtph_ps(_mm_slli_epi16(b, 8)));
    }
    wan_dequantise(WAN_F8_E5M2, dst, from, n);
}

static void unpack_mlx_8(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    for (; n >= 8; n -= 8, dst += 8, from += 8) {
        __m256i q = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)from));
        _mm256_storeu_ps(dst, _mm256_cvtepi32_ps(q));
    }
    wan_dequantise(WAN_MLX_8, dst, from, n);
}

#undef X86_WORD
#endif
