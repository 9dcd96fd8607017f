/* SPDX-License-Identifier: Apache-2.0 */
/* Super-blocks of 256 elements: a scale (and a minimum) for the whole, small ones for 16 or 32.
 * Codes lie in bit planes: a byte serves elements 32 apart. */
#include "tensor/quants_block.h"

/* 2-bit code i of Q2_K and Q3_K. */
static int two_bits(const uint8_t *qs, int i) {
    return qs[i / 128 * 32 + i % 32] >> 2 * (i % 128 / 32) & 3;
}

/* 4-bit code i of Q4_K and Q5_K. */
static int four_bits(const uint8_t *qs, int i) {
    return qs[i / 64 * 32 + i % 32] >> (i % 64 < 32 ? 0 : 4) & 15;
}

void wan_unpack_q2_k(float *dst, const uint8_t *b) {
    const uint8_t *sc = b, *qs = b + 16;
    float d = wan_load_half(b + 80), dmin = wan_load_half(b + 82);
    for (int i = 0; i < QK_K; i++) {
        float scale = d * (float)(sc[i / 16] & 15), min = dmin * (float)(sc[i / 16] >> 4);
        dst[i] = scale * (float)two_bits(qs, i) - min;
    }
}

void wan_unpack_q3_k(float *dst, const uint8_t *b) {
    const uint8_t *high = b, *qs = b + 32, *sc = b + 96;
    float d = wan_load_half(b + 108);
    for (int i = 0; i < QK_K; i++) {
        float scale = d * (float)wan_q3_k_scale(sc, i / 16);
        int minus = high[i % 32] >> i / 32 & 1 ? 0 : 4;
        dst[i] = scale * (float)(two_bits(qs, i) - minus);
    }
}

void wan_unpack_q4_k(float *dst, const uint8_t *b) {
    const uint8_t *sc = b + 4, *qs = sc + K_SCALES;
    float d = wan_load_half(b), dmin = wan_load_half(b + 2);
    for (int i = 0; i < QK_K; i++) {
        float scale = d * (float)wan_k_scale(sc, i / 32), min = dmin * (float)wan_k_min(sc, i / 32);
        dst[i] = scale * (float)four_bits(qs, i) - min;
    }
}

void wan_unpack_q5_k(float *dst, const uint8_t *b) {
    const uint8_t *sc = b + 4, *high = sc + K_SCALES, *qs = high + 32;
    float d = wan_load_half(b), dmin = wan_load_half(b + 2);
    for (int i = 0; i < QK_K; i++) {
        float scale = d * (float)wan_k_scale(sc, i / 32), min = dmin * (float)wan_k_min(sc, i / 32);
        int q = four_bits(qs, i) | (high[i % 32] >> i / 32 & 1) << 4;
        dst[i] = scale * (float)q - min;
    }
}

void wan_unpack_q6_k(float *dst, const uint8_t *b) {
    const int8_t *sc = (const int8_t *)b + 192;
    float d = wan_load_half(b + 208);
    for (int i = 0; i < QK_K; i++) {
        int n = i / 128, g = i % 128 / 32, l = i % 32;
        const uint8_t *low = b + 64 * n + l + 32 * (g & 1), *high = b + 128 + 32 * n + l;
        int q = (*low >> (g < 2 ? 0 : 4) & 15) | (*high >> 2 * g & 3) << 4;
        dst[i] = d * (float)sc[i / 16] * (float)(q - 32);
    }
}
