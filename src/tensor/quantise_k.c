/* SPDX-License-Identifier: Apache-2.0 */
/* Super-blocks of 256: fit each group of 16 or 32, code the groups' scales, then choose the codes
 * again for the scales as they will be read. */
#include <math.h>

#include "tensor/quantise_block.h"

static uint16_t store_half(uint8_t *p, float v) {
    uint16_t h = wan_half_from_float(v);
    wan_store_16(p, h);
    return h;
}

/* Two-bit codes: a byte serves elements 32 apart. */
static void store_two_bits(uint8_t *qs, const uint8_t *code) {
    memset(qs, 0, 64);
    for (int i = 0; i < QK_K; i++)
        qs[i / 128 * 32 + i % 32] |= (uint8_t)((code[i] & 3) << 2 * (i % 128 / 32));
}

static void store_four_bits(uint8_t *qs, const uint8_t *code) {
    for (int i = 0; i < QK_K / 2; i++) {
        int at = i / 32 * 64 + i % 32;
        qs[i] = (uint8_t)((code[at] & 15) | code[at + 32] << 4);
    }
}

static float greatest(const float *x, int n) {
    float most = 0;
    for (int i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

/* Codes of x ~ d code - min; a group whose scale came out as 0 keeps its first ones. */
static void affine_again(const float *x, int n, float d, float min, int top, uint8_t *code) {
    if (d == 0)
        return;
    for (int i = 0; i < n; i++)
        code[i] = (uint8_t)wan_clamp(wan_nearest((x[i] + min) / d), 0, top);
}

void wan_pack_q2_k(uint8_t *b, const float *x) {
    static const affine_search how = {
        .top = 3, .steps = 15, .first = -0.5f, .step = 0.1f, .absolute = true};
    uint8_t code[QK_K];
    float scale[16], min[16], weight[16];
    for (int j = 0; j < 16; j++) {
        for (int i = 0; i < 16; i++)
            weight[i] = wan_abs(x[16 * j + i]);
        scale[j] = wan_fit_affine(&how, 16, x + 16 * j, weight, code + 16 * j, min + j);
    }
    float top = greatest(scale, 16), low = greatest(min, 16);
    float inverse = top > 0 ? 15 / top : 0, inverse_min = low > 0 ? 15 / low : 0;
    float d = wan_half_to_float(store_half(b + 80, top / 15));
    float dmin = wan_half_to_float(store_half(b + 82, low / 15));
    for (int j = 0; j < 16; j++) {
        int s = wan_clamp(wan_nearest(inverse * scale[j]), 0, 15);
        int m = wan_clamp(wan_nearest(inverse_min * min[j]), 0, 15);
        b[j] = (uint8_t)(s | m << 4);
        affine_again(x + 16 * j, 16, d * (float)s, dmin * (float)m, 3, code + 16 * j);
    }
    store_two_bits(b + 16, code);
}

/* The 6-bit pairs of scales and minima; the inverse of wan_k_scale and wan_k_min. */
static void store_pairs(uint8_t *sc, const int *s, const int *m) {
    for (int j = 0; j < 4; j++) {
        sc[j] = (uint8_t)(s[j] | s[j + 4] >> 4 << 6);
        sc[j + 4] = (uint8_t)(m[j] | m[j + 4] >> 4 << 6);
        sc[j + 8] = (uint8_t)((s[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
}

/* The first 16 bytes of Q4_K and Q5_K, and the codes. */
static void affine_block(uint8_t *b, const float *x, const affine_search *how, uint8_t *code) {
    float scale[8], min[8], weight[32];
    for (int j = 0; j < 8; j++) {
        const float *group = x + 32 * j;
        float squares = 0;
        for (int i = 0; i < 32; i++)
            squares += group[i] * group[i];
        float mean = sqrtf(squares / 32);
        for (int i = 0; i < 32; i++)
            weight[i] = mean + wan_abs(group[i]);
        scale[j] = wan_fit_affine(how, 32, group, weight, code + 32 * j, min + j);
    }
    float top = greatest(scale, 8), low = greatest(min, 8);
    float inverse = top > 0 ? 63 / top : 0, inverse_min = low > 0 ? 63 / low : 0;
    float d = wan_half_to_float(store_half(b, top / 63));
    float dmin = wan_half_to_float(store_half(b + 2, low / 63));
    int s[8], m[8];
    for (int j = 0; j < 8; j++) {
        s[j] = wan_clamp(wan_nearest(inverse * scale[j]), 0, 63);
        m[j] = wan_clamp(wan_nearest(inverse_min * min[j]), 0, 63);
        affine_again(x + 32 * j, 32, d * (float)s[j], dmin * (float)m[j], how->top, code + 32 * j);
    }
    store_pairs(b + 4, s, m);
}

void wan_pack_q4_k(uint8_t *b, const float *x) {
    static const affine_search how = {.top = 15, .steps = 20, .first = -1, .step = 0.1f};
    uint8_t code[QK_K];
    affine_block(b, x, &how, code);
    store_four_bits(b + 4 + K_SCALES, code);
}

void wan_pack_q5_k(uint8_t *b, const float *x) {
    static const affine_search how = {.top = 31, .steps = 15, .first = -0.5f, .step = 0.1f};
    uint8_t code[QK_K], *high = b + 4 + K_SCALES;
    affine_block(b, x, &how, code);
    memset(high, 0, 32);
    for (int i = 0; i < QK_K; i++)
        high[i % 32] |= (uint8_t)((code[i] >> 4) << i / 32);
    store_four_bits(high + 32, code);
}

/* Codes of x ~ d (code - top), or the first ones where d is 0. */
static void signed_again(const float *x, float d, int top, uint8_t *code) {
    if (d == 0)
        return;
    for (int i = 0; i < 16; i++)
        code[i] = (uint8_t)(wan_clamp(wan_nearest(x[i] / d), -top, top - 1) + top);
}

void wan_pack_q3_k(uint8_t *b, const float *x) {
    uint8_t code[QK_K];
    float scale[16];
    for (int j = 0; j < 16; j++)
        scale[j] = wan_fit_signed_steps(16, 4, x + 16 * j, code + 16 * j);
    float extreme = wan_extreme(scale, 16), inverse = extreme != 0 ? -32 / extreme : 0;
    uint8_t *high = b, *qs = b + 32, *sc = b + 96;
    float d = wan_half_to_float(store_half(b + 108, wan_inverse(inverse)));
    memset(sc, 0, K_SCALES);
    for (int j = 0; j < 16 && extreme != 0; j++) {
        int l = wan_clamp(wan_nearest(inverse * scale[j]), -32, 31) + 32;
        sc[j % 8] |= (uint8_t)((l & 15) << 4 * (j / 8));
        sc[8 + j % 4] |= (uint8_t)((l >> 4) << 2 * (j / 4));
        signed_again(x + 16 * j, d * (float)(l - 32), 4, code + 16 * j);
    }
    memset(high, 0, 32);
    for (int i = 0; i < QK_K; i++)
        high[i % 32] |= (uint8_t)((code[i] >> 2) << i / 32);
    store_two_bits(qs, code);
}

void wan_pack_q6_k(uint8_t *b, const float *x) {
    uint8_t code[QK_K];
    float scale[16];
    for (int j = 0; j < 16; j++)
        scale[j] = wan_fit_signed(16, 32, x + 16 * j, code + 16 * j);
    float extreme = wan_extreme(scale, 16);
    memset(b, 0, 210);
    if (wan_abs(extreme) < WAN_NO_SIGNAL)
        return;
    float inverse = -128 / extreme;
    float d = wan_half_to_float(store_half(b + 208, 1 / inverse));
    for (int j = 0; j < 16; j++) {
        int l = wan_clamp(wan_nearest(inverse * scale[j]), -128, 127);
        b[192 + j] = (uint8_t)(int8_t)l;
        signed_again(x + 16 * j, d * (float)l, 32, code + 16 * j);
    }
    for (int i = 0; i < QK_K; i++) {
        int n = i / 128, g = i % 128 / 32, l = i % 32, q = code[i];
        b[64 * n + l + 32 * (g & 1)] |= (uint8_t)((q & 15) << (g < 2 ? 0 : 4));
        b[128 + 32 * n + l] |= (uint8_t)((q >> 4) << 2 * g);
    }
}
