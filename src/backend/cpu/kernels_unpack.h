/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_unpack.h - stored weights to f32, part of kernels_vector.h and in its words.
 * Codes are brought to 16 signed bytes, then multiplied and subtracted in the order of
 * src/tensor/quants.c, so the bits are the same.  A file that includes this has the type `codes`,
 * 16 of them, and the words c_load c_set c_or c_sub, c_field (`mask` bits from `shift` bits up in
 * every byte), c_field_to (the same, moved to bit `to`), c_nibbles (of 8 bytes, the lower one of
 * each first), c_lookup, c_where (x where a bit is set, else 0), v_from_codes (LANES codes from
 * `from` on as signed numbers), v_set_f16, and unpack_f8_e4m3, unpack_f8_e5m2, unpack_mlx_8. */
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

static void unpack_i8(float *dst, const void *src, int64_t n) {
    const char *from = src;
    for (; n >= LANES; n -= LANES, dst += LANES, from += LANES)
        v_store(dst, v_from_i8(from));
    wan_dequantise(WAN_I8, dst, from, n);
}

static void unpack_mlx_4(float *dst, const void *src, int64_t n) {
    const uint8_t *from = src;
    for (; n >= 16; n -= 16, dst += 16, from += 8) {
        codes q = c_nibbles(from);
        for (int i = 0; i < 16; i += LANES)
            v_store(dst + i, v_from_codes(q, i));
    }
    wan_dequantise(WAN_MLX_4, dst, from, n);
}

/* dst = d q, 16 of them. */
INLINE void put(float *dst, codes q, vec d) {
    for (int i = 0; i < 16; i += LANES)
        v_store(dst + i, v_mul(d, v_from_codes(q, i)));
}

/* dst = d q + m. */
INLINE void put_plus(float *dst, codes q, vec d, vec m) {
    for (int i = 0; i < 16; i += LANES)
        v_store(dst + i, v_add(v_mul(d, v_from_codes(q, i)), m));
}

/* dst = d q - m. */
INLINE void put_minus(float *dst, codes q, vec d, vec m) {
    for (int i = 0; i < 16; i += LANES)
        v_store(dst + i, v_sub(v_mul(d, v_from_codes(q, i)), m));
}

INLINE codes minus(codes q, int n) {
    return c_sub(q, c_set(n));
}

INLINE vec half_at(const uint8_t *p) {
    return v_set_f16(wan_load_16(p));
}

/* The value of each code of IQ4. */
INLINE codes values_of(codes nibbles) {
    return c_lookup(wan_iq4_values, nibbles);
}

static void unpack_q8_0(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 34) {
        vec d = half_at(b);
        put(dst, c_load(b + 2), d);
        put(dst + 16, c_load(b + 18), d);
    }
}

static void unpack_q4_0(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 18) {
        vec d = half_at(b);
        codes q = c_load(b + 2);
        put(dst, minus(c_field(q, 0, 15), 8), d);
        put(dst + 16, minus(c_field(q, 4, 15), 8), d);
    }
}

static void unpack_q4_1(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 20) {
        vec d = half_at(b), m = half_at(b + 2);
        codes q = c_load(b + 4);
        put_plus(dst, c_field(q, 0, 15), d, m);
        put_plus(dst + 16, c_field(q, 4, 15), d, m);
    }
}

static void unpack_q5_0(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 22) {
        vec d = half_at(b);
        codes q = c_load(b + 6);
        codes low = c_or(c_field(q, 0, 15), c_where(wan_load_16(b + 2), 16));
        codes high = c_or(c_field(q, 4, 15), c_where(wan_load_16(b + 4), 16));
        put(dst, minus(low, 16), d);
        put(dst + 16, minus(high, 16), d);
    }
}

static void unpack_q5_1(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 24) {
        vec d = half_at(b), m = half_at(b + 2);
        codes q = c_load(b + 8);
        put_plus(dst, c_or(c_field(q, 0, 15), c_where(wan_load_16(b + 4), 16)), d, m);
        put_plus(dst + 16, c_or(c_field(q, 4, 15), c_where(wan_load_16(b + 6), 16)), d, m);
    }
}

static void unpack_iq4_nl(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= 32, dst += 32, b += 18) {
        vec d = half_at(b);
        codes q = c_load(b + 2);
        put(dst, values_of(c_field(q, 0, 15)), d);
        put(dst + 16, values_of(c_field(q, 4, 15)), d);
    }
}

static void unpack_iq4_xs(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 136)
        for (int j = 0; j < 8; j++, dst += 32) {
            vec d = v_mul(half_at(b), v_set((float)wan_iq4_xs_scale(b, j)));
            codes q = c_load(b + 8 + 16 * j);
            put(dst, values_of(c_field(q, 0, 15)), d);
            put(dst + 16, values_of(c_field(q, 4, 15)), d);
        }
}

static void unpack_q2_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 84) {
        vec d = half_at(b + 80), dmin = half_at(b + 82);
        for (int j = 0; j < 16; j++, dst += 16) { /* 8 groups of a half share 32 bytes */
            codes q = c_load(b + 16 + j / 8 * 32 + j % 2 * 16);
            vec scale = v_mul(d, v_set((float)(b[j] & 15)));
            vec min = v_mul(dmin, v_set((float)(b[j] >> 4)));
            put_minus(dst, c_field(q, j % 8 / 2 * 2, 3), scale, min);
        }
    }
}

static void unpack_q3_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 110) {
        vec d = half_at(b + 108);
        for (int j = 0; j < 16; j++, dst += 16) {
            codes q = c_load(b + 32 + j / 8 * 32 + j % 2 * 16), high = c_load(b + j % 2 * 16);
            q = c_or(c_field(q, j % 8 / 2 * 2, 3), c_field_to(high, j / 2, 1, 2));
            put(dst, minus(q, 4), v_mul(d, v_set((float)wan_q3_k_scale(b + 96, j))));
        }
    }
}

/* Group j of Q4_K and Q5_K: 16 codes for each half of its bytes. */
INLINE void unpack_pair(float *dst, codes q0, codes q1, const uint8_t *b, int j) {
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
            unpack_pair(dst, c_field(c_load(qs), up, 15), c_field(c_load(qs + 16), up, 15), b, j);
        }
}

static void unpack_q5_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 176) {
        codes high0 = c_load(b + 16), high1 = c_load(b + 32);
        for (int j = 0; j < 8; j++, dst += 32) {
            const uint8_t *qs = b + 48 + j / 2 * 32;
            int up = j % 2 * 4;
            codes q0 = c_field(c_load(qs), up, 15), q1 = c_field(c_load(qs + 16), up, 15);
            unpack_pair(dst, c_or(q0, c_field_to(high0, j, 1, 4)),
                        c_or(q1, c_field_to(high1, j, 1, 4)), b, j);
        }
    }
}

static void unpack_q6_k(float *dst, const void *src, int64_t n) {
    const uint8_t *b = src;
    for (; n > 0; n -= QK_K, b += 210) {
        vec d = half_at(b + 208);
        for (int j = 0; j < 16; j++, dst += 16) { /* half j / 8, plane j / 2, 16 of its 32 bytes */
            int plane = j % 8 / 2;
            codes low = c_load(b + j / 8 * 64 + plane % 2 * 32 + j % 2 * 16);
            codes high = c_load(b + 128 + j / 8 * 32 + j % 2 * 16);
            codes q = c_or(c_field(low, plane / 2 * 4, 15), c_field_to(high, plane * 2, 3, 4));
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
