/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/quants.h"

#include <assert.h>

#include "base/fp8.h"
#include "tensor/quants_block.h"

const int8_t wan_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

/* Nibble i of a small block: the first half of the elements are the low ones. */
static int nibble(const uint8_t *qs, int i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

static void q4_0(float *dst, const uint8_t *b) {
    float d = wan_load_half(b);
    for (int i = 0; i < QK_SMALL; i++)
        dst[i] = d * (float)(nibble(b + 2, i) - 8);
}

static void q4_1(float *dst, const uint8_t *b) {
    float d = wan_load_half(b), m = wan_load_half(b + 2);
    for (int i = 0; i < QK_SMALL; i++)
        dst[i] = d * (float)nibble(b + 4, i) + m;
}

static void q5_0(float *dst, const uint8_t *b) {
    float d = wan_load_half(b);
    uint32_t high = wan_load_32(b + 2);
    for (int i = 0; i < QK_SMALL; i++)
        dst[i] = d * (float)((nibble(b + 6, i) | (int)(high >> i & 1) << 4) - 16);
}

static void q5_1(float *dst, const uint8_t *b) {
    float d = wan_load_half(b), m = wan_load_half(b + 2);
    uint32_t high = wan_load_32(b + 4);
    for (int i = 0; i < QK_SMALL; i++)
        dst[i] = d * (float)(nibble(b + 8, i) | (int)(high >> i & 1) << 4) + m;
}

static void q8_0(float *dst, const uint8_t *b) {
    float d = wan_load_half(b);
    for (int i = 0; i < QK_SMALL; i++)
        dst[i] = d * (float)(int8_t)b[2 + i];
}

static void iq4_nl(float *dst, const uint8_t *b) {
    float d = wan_load_half(b);
    for (int i = 0; i < QK_SMALL; i++)
        dst[i] = d * (float)wan_iq4_values[nibble(b + 2, i)];
}

static void iq4_xs(float *dst, const uint8_t *b) {
    float d = wan_load_half(b);
    for (int j = 0; j < 8; j++) {
        float dj = d * (float)wan_iq4_xs_scale(b, j);
        for (int i = 0; i < 32; i++)
            dst[32 * j + i] = dj * (float)wan_iq4_values[nibble(b + 8 + 16 * j, i)];
    }
}

/* Plain types: a "block" is one number. */
static void f32(float *dst, const uint8_t *b) {
    *dst = wan_bits_float(wan_load_32(b));
}

static void f64(float *dst, const uint8_t *b) {
    double d;
    memcpy(&d, b, sizeof d);
    *dst = (float)d;
}

static void f16(float *dst, const uint8_t *b) {
    *dst = wan_load_half(b);
}

static void bf16(float *dst, const uint8_t *b) {
    *dst = wan_brain_to_float(wan_load_16(b));
}

static void f8_e4m3(float *dst, const uint8_t *b) {
    *dst = wan_f8_e4m3_to_float(*b);
}

static void f8_e5m2(float *dst, const uint8_t *b) {
    *dst = wan_f8_e5m2_to_float(*b);
}

static void i8(float *dst, const uint8_t *b) {
    *dst = (float)(int8_t)*b;
}

static void mlx_8(float *dst, const uint8_t *b) {
    *dst = (float)*b;
}

static void mlx_4(float *dst, const uint8_t *b) {
    dst[0] = (float)(*b & 15);
    dst[1] = (float)(*b >> 4);
}

/* The loops see their block's size and decoder, so that they can be compiled as one. */
#define CASE(TYPE, DECODE, BLOCK, BYTES)                                                           \
    case TYPE:                                                                                     \
        for (int64_t i = 0; i < n; i += BLOCK, b += BYTES)                                         \
            DECODE(dst + i, b);                                                                    \
        break;

bool wan_can_dequantise(dtype type) {
    return wan_dtype(type)->weight;
}

void wan_dequantise(dtype type, float *dst, const void *src, int64_t n) {
    assert(wan_can_dequantise(type) && n % wan_dtype(type)->block == 0);
    const uint8_t *b = src;
    /* clang-format off */
    switch (type) {
    CASE(WAN_F32, f32, 1, 4)
    CASE(WAN_F64, f64, 1, 8)
    CASE(WAN_F16, f16, 1, 2)
    CASE(WAN_BF16, bf16, 1, 2)
    CASE(WAN_F8_E4M3, f8_e4m3, 1, 1)
    CASE(WAN_F8_E5M2, f8_e5m2, 1, 1)
    CASE(WAN_I8, i8, 1, 1)
    CASE(WAN_MLX_8, mlx_8, 1, 1)
    CASE(WAN_MLX_4, mlx_4, 2, 1)
    CASE(WAN_Q8_0, q8_0, QK_SMALL, 34)
    CASE(WAN_Q4_0, q4_0, QK_SMALL, 18)
    CASE(WAN_Q4_1, q4_1, QK_SMALL, 20)
    CASE(WAN_Q5_0, q5_0, QK_SMALL, 22)
    CASE(WAN_Q5_1, q5_1, QK_SMALL, 24)
    CASE(WAN_IQ4_NL, iq4_nl, QK_SMALL, 18)
    CASE(WAN_IQ4_XS, iq4_xs, QK_K, 136)
    CASE(WAN_Q2_K, wan_unpack_q2_k, QK_K, 84)
    CASE(WAN_Q3_K, wan_unpack_q3_k, QK_K, 110)
    CASE(WAN_Q4_K, wan_unpack_q4_k, QK_K, 144)
    CASE(WAN_Q5_K, wan_unpack_q5_k, QK_K, 176)
    CASE(WAN_Q6_K, wan_unpack_q6_k, QK_K, 210)
    default: assert(!"no weight has this type");
    }
    /* clang-format on */
}
