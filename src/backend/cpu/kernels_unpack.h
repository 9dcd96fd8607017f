/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_unpack.h - stored weights to f32, part of kernels_vector.h and in its words.
 * Codes are brought to 16 signed bytes, then multiplied and subtracted in the order of
 * src/tensor/quants.c, so the bits are the same.  v_from_bytes: the lowest LANES bytes of a
 * register as signed numbers. */
#ifndef WAN_BACKEND_CPU_KERNELS_UNPACK_H
#define WAN_BACKEND_CPU_KERNELS_UNPACK_H

#include "tensor/quants.h"
#include "tensor/quants_block.h"

/* A half-precision number or the last few of a row. */
INLINE vec part_from_2_bytes(const char *src, int64_t n, bool bf16) {
    uint16_t h[LANES] = {0};
    memcpy(h, src, (size_t)n * sizeof *h);
    return bf16 ? v_from_bf16(h) : v_from_f16(h);
}

static void unpack_f16(float *dst, const void *src, int64_t n) {
    const char *from = src;
    for (; n >= LANES; n -= LANES, dst += LANES, from += 2 * LANES)
        v_store(dst, v_from_f16(from));
    if (n)
        v_store_part(dst, part_from_2_bytes(from, n, false), (int)n);
}

static void unpack_bf16(float *dst, const void *src, int64_t n) {
    const char *from = src;
    for (; n >= LANES; n -= LANES, dst += LANES, from += 2 * LANES)
        v_store(dst, v_from_bf16(from));
    if (n)
        v_store_part(dst, part_from_2_bytes(from, n, true), (int)n);
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

static void unpack_i8(float *dst, const void *src, int64_t n) {
    const char *from = src;
    for (; n >= LANES; n -= LANES, dst += LANES, from += LANES)
        v_store(dst, v_from_i8(from));
    wan_dequantise(WAN_I8, dst, from, n);
}

static void unpack_mlx_8(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    for (; n >= 8; n -= 8, dst += 8, from += 8) {
        __m256i q = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)from));
        _mm256_storeu_ps(dst, _mm256_cvtepi32_ps(q));
    }
    wan_dequantise(WAN_MLX_8, dst, from, n);
}

static void unpack_mlx_4(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    const __m128i nibble = _mm_set1_epi8(15);
    for (; n >= 16; n -= 16, dst += 16, from += 8) {
        __m128i b = _mm_loadl_epi64((const void *)from);
        __m128i q = _mm_unpacklo_epi8(_mm_and_si128(b, nibble),
                                      _mm_and_si128(_mm_srli_epi16(b, 4), nibble));
        for (int i = 0; i < 16; i += LANES)
            v_store(dst + i, v_from_bytes(i ? _mm_unpackhi_epi64(q, q) : q));
    }
    wan_dequantise(WAN_MLX_4, dst, from, n);
}

/* dst = d q, 16 of them. */
INLINE void put(float *dst, __m128i q, vec d) {
    for (int i = 0; i < 16; i += LANES)
        v_store(dst + i, v_mul(d, v_from_bytes(i ? _mm_unpackhi_epi64(q, q) : q)));
}

/* dst = d q + m. */
INLINE void put_plus(float *dst, __m128i q, vec d, vec m) {
    for (int i = 0; i < 16; i += LANES)
        v_store(dst + i, v_add(v_mul(d, v_from_bytes(i ? _mm_unpackhi_epi64(q, q) : q)), m));
}

/* dst = d q - m. */
INLINE void put_minus(float *dst, __m128i q, vec d, vec m) {
    for (int i = 0; i < 16; i += LANES)
        v_store(dst + i, v_sub(v_mul(d, v_from_bytes(i ? _mm_unpackhi_epi64(q, q) : q)), m));
}

INLINE __m128i bytes_16(const uint8_t *p) {
    return _mm_loadu_si128((const void *)p);
}

/* Fields of `mask` bits, `shift` bits up in every byte. */
INLINE __m128i field(__m128i b, int shift, int mask) {
    return _mm_and_si128(_mm_srl_epi16(b, _mm_cvtsi32_si128(shift)), _mm_set1_epi8((char)mask));
}

/* The same, moved to bit `to`. */
INLINE __m128i field_to(__m128i b, int shift, int mask, int to) {
    return _mm_slli_epi16(field(b, shift, mask), to);
}

INLINE __m128i minus(__m128i q, int n) {
    return _mm_sub_epi8(q, _mm_set1_epi8((char)n));
}

INLINE __m128i values_of(__m128i nibbles) {
    return _mm_shuffle_epi8(_mm_loadu_si128((const void *)wan_iq4_values), nibbles);
}

INLINE vec half_at(const uint8_t *p) {
    return v_set(_cvtsh_ss(wan_load_16(p)));
}

/* 16 where the bit of an element is set, for 16 elements of the 16 bits. */
INLINE __m128i fifth_bits(unsigned bits) {
    const __m128i each = _mm_set1_epi64x((int64_t)0x8040201008040201);
    const __m128i spread = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    __m128i b = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)bits), spread);
    b = _mm_cmpeq_epi8(_mm_and_si128(b, each), each);
    return _mm_and_si128(b, _mm_set1_epi8(16));
}

static void unpack_q8_0(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 34) {
        vec d = half_at(b);
        put(dst, bytes_16(b + 2), d);
        put(dst + 16, bytes_16(b + 18), d);
    }
}

static void unpack_q4_0(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 18) {
        vec d = half_at(b);
        __m128i q = bytes_16(b + 2);
        put(dst, minus(field(q, 0, 15), 8), d);
        put(dst + 16, minus(field(q, 4, 15), 8), d);
    }
}

static void unpack_q4_1(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 20) {
        vec d = half_at(b), m = half_at(b + 2);
        __m128i q = bytes_16(b + 4);
        put_plus(dst, field(q, 0, 15), d, m);
        put_plus(dst + 16, field(q, 4, 15), d, m);
    }
}

static void unpack_q5_0(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 22) {
        vec d = half_at(b);
        __m128i q = bytes_16(b + 6);
        __m128i low = _mm_or_si128(field(q, 0, 15), fifth_bits(wan_load_16(b + 2)));
        __m128i high = _mm_or_si128(field(q, 4, 15), fifth_bits(wan_load_16(b + 4)));
        put(dst, minus(low, 16), d);
        put(dst + 16, minus(high, 16), d);
    }
}

static void unpack_q5_1(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 24) {
        vec d = half_at(b), m = half_at(b + 2);
        __m128i q = bytes_16(b + 8);
        put_plus(dst, _mm_or_si128(field(q, 0, 15), fifth_bits(wan_load_16(b + 4))), d, m);
        put_plus(dst + 16, _mm_or_si128(field(q, 4, 15), fifth_bits(wan_load_16(b + 6))), d, m);
    }
}

static void unpack_iq4_nl(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 18) {
        vec d = half_at(b);
        __m128i q = bytes_16(b + 2);
        put(dst, values_of(field(q, 0, 15)), d);
        put(dst + 16, values_of(field(q, 4, 15)), d);
    }
}

static void unpack_iq4_xs(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 136)
        for (int j = 0; j < 8; j++, dst += 32) {
            vec d = v_mul(half_at(b), v_set((float)wan_iq4_xs_scale(b, j)));
            __m128i q = bytes_16(b + 8 + 16 * j);
            put(dst, values_of(field(q, 0, 15)), d);
            put(dst + 16, values_of(field(q, 4, 15)), d);
        }
}

static void unpack_q2_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 84) {
        vec d = half_at(b + 80), dmin = half_at(b + 82);
        for (int j = 0; j < 16; j++, dst += 16) { /* 8 groups of a half share 32 bytes */
            __m128i q = bytes_16(b + 16 + j / 8 * 32 + j % 2 * 16);
            vec scale = v_mul(d, v_set((float)(b[j] & 15)));
            vec min = v_mul(dmin, v_set((float)(b[j] >> 4)));
            put_minus(dst, field(q, j % 8 / 2 * 2, 3), scale, min);
        }
    }
}

static void unpack_q3_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 110) {
        vec d = half_at(b + 108);
        for (int j = 0; j < 16; j++, dst += 16) {
            __m128i q = bytes_16(b + 32 + j / 8 * 32 + j % 2 * 16), high = bytes_16(b + j % 2 * 16);
            q = _mm_or_si128(field(q, j % 8 / 2 * 2, 3), field_to(high, j / 2, 1, 2));
            put(dst, minus(q, 4), v_mul(d, v_set((float)wan_q3_k_scale(b + 96, j))));
        }
    }
}

/* Group j of Q4_K and Q5_K: 16 codes for each half of its bytes. */
INLINE void unpack_pair(float *dst, __m128i q0, __m128i q1, const uint8_t *b, int j) {
    vec d = v_mul(half_at(b), v_set((float)wan_k_scale(b + 4, j)));
    vec m = v_mul(half_at(b + 2), v_set((float)wan_k_min(b + 4, j)));
    put_minus(dst, q0, d, m);
    put_minus(dst + 16, q1, d, m);
}

static void unpack_q4_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 144)
        for (int j = 0; j < 8; j++, dst += 32) {
            const uint8_t *qs = b + 16 + j / 2 * 32;
            int up = j % 2 * 4;
            unpack_pair(dst, field(bytes_16(qs), up, 15), field(bytes_16(qs + 16), up, 15), b, j);
        }
}

static void unpack_q5_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 176) {
        __m128i high0 = bytes_16(b + 16), high1 = bytes_16(b + 32);
        for (int j = 0; j < 8; j++, dst += 32) {
            const uint8_t *qs = b + 48 + j / 2 * 32;
            int up = j % 2 * 4;
            __m128i q0 = field(bytes_16(qs), up, 15), q1 = field(bytes_16(qs + 16), up, 15);
            unpack_pair(dst, _mm_or_si128(q0, field_to(high0, j, 1, 4)),
                        _mm_or_si128(q1, field_to(high1, j, 1, 4)), b, j);
        }
    }
}

static void unpack_q6_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 210) {
        vec d = half_at(b + 208);
        for (int j = 0; j < 16; j++, dst += 16) { /* half j / 8, plane j / 2, 16 of its 32 bytes */
            int plane = j % 8 / 2;
            __m128i low = bytes_16(b + j / 8 * 64 + plane % 2 * 32 + j % 2 * 16);
            __m128i high = bytes_16(b + 128 + j / 8 * 32 + j % 2 * 16);
            __m128i q =
                _mm_or_si128(field(low, plane / 2 * 4, 15), field_to(high, plane * 2, 3, 4));
            put(dst, minus(q, 32), v_mul(d, v_set((float)(int8_t)b[192 + j])));
        }
    }
}

INLINE void fill_unpack(cpu_kernels *k) {
    k->unpack[WAN_F16] = unpack_f16;
    k->unpack[WAN_BF16] = unpack_bf16;
    k->unpack[WAN_F8_E4M3] = unpack_f8_e4m3;
    k->unpack[WAN_F8_E5M2] = unpack_f8_e5m2;
    k->unpack[WAN_I8] = unpack_i8;
    k->unpack[WAN_MLX_8] = unpack_mlx_8;
    k->unpack[WAN_MLX_4] = unpack_mlx_4;
    k->unpack[WAN_Q8_0] = unpack_q8_0;
    k->unpack[WAN_Q4_0] = unpack_q4_0;
    k->unpack[WAN_Q4_1] = unpack_q4_1;
    k->unpack[WAN_Q5_0] = unpack_q5_0;
    k->unpack[WAN_Q5_1] = unpack_q5_1;
    k->unpack[WAN_IQ4_NL] = unpack_iq4_nl;
    k->unpack[WAN_IQ4_XS] = unpack_iq4_xs;
    k->unpack[WAN_Q2_K] = unpack_q2_k;
    k->unpack[WAN_Q3_K] = unpack_q3_k;
    k->unpack[WAN_Q4_K] = unpack_q4_k;
    k->unpack[WAN_Q5_K] = unpack_q5_k;
    k->unpack[WAN_Q6_K] = unpack_q6_k;
}

#endif
