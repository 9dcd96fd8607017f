/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks of 32 elements, and the two types whose codes stand for 16 uneven values. */
#include <math.h>

#include "tensor/quantise_block.h"

static void store_half(uint8_t *p, float v) {
    wan_store_16(p, wan_half_from_float(v));
}

/* Truncated to 0..top; the float may be anything but NaN. */
static int code_of(float v, int top) {
    return v >= (float)top ? top : v > 0 ? (int)v : 0;
}

static void store_nibbles(uint8_t *qs, const uint8_t *code) {
    for (int i = 0; i < 16; i++)
        qs[i] = (uint8_t)((code[i] & 15) | code[i + 16] << 4);
}

static void store_fifth_bits(uint8_t *p, const uint8_t *code) {
    memset(p, 0, 4);
    for (int i = 0; i < QK_SMALL; i++)
        p[i / 8] |= (uint8_t)((code[i] >> 4) << i % 8);
}

void wan_pack_q8_0(uint8_t *b, const float *x) {
    float d = wan_abs(wan_extreme(x, QK_SMALL)) / 127, id = wan_inverse(d);
    store_half(b, d);
    for (int i = 0; i < QK_SMALL; i++)
        b[2 + i] = (uint8_t)(int8_t)roundf(x[i] * id);
}

/* d and codes 0..2 zero - 1 around `zero`. */
static float symmetric(const float *x, int zero, uint8_t *code) {
    float d = wan_extreme(x, QK_SMALL) / -(float)zero, id = wan_inverse(d);
    for (int i = 0; i < QK_SMALL; i++)
        code[i] = (uint8_t)code_of(x[i] * id + ((float)zero + 0.5f), 2 * zero - 1);
    return d;
}

void wan_pack_q4_0(uint8_t *b, const float *x) {
    uint8_t code[QK_SMALL];
    store_half(b, symmetric(x, 8, code));
    store_nibbles(b + 2, code);
}

void wan_pack_q5_0(uint8_t *b, const float *x) {
    uint8_t code[QK_SMALL];
    store_half(b, symmetric(x, 16, code));
    store_fifth_bits(b + 2, code);
    store_nibbles(b + 6, code);
}

/* Scale and minimum into b, and codes 0..top. */
static void from_minimum(uint8_t *b, const float *x, int top, uint8_t *code) {
    float low = x[0], high = x[0];
    for (int i = 1; i < QK_SMALL; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    float d = (high - low) / (float)top, id = wan_inverse(d);
    for (int i = 0; i < QK_SMALL; i++)
        code[i] = (uint8_t)code_of((x[i] - low) * id + 0.5f, top);
    store_half(b, d);
    store_half(b + 2, low);
}

void wan_pack_q4_1(uint8_t *b, const float *x) {
    uint8_t code[QK_SMALL];
    from_minimum(b, x, 15, code);
    store_nibbles(b + 4, code);
}

void wan_pack_q5_1(uint8_t *b, const float *x) {
    uint8_t code[QK_SMALL];
    from_minimum(b, x, 31, code);
    store_fifth_bits(b + 4, code);
    store_nibbles(b + 8, code);
}

/* Code of the value nearest to v; half way, the greater. */
static int nearest_value(float v) {
    const int8_t *t = wan_iq4_values;
    if (v >= t[15])
        return 15;
    int i = 0;
    while (i < 15 && v >= t[i + 1])
        i++;
    return i < 15 && v - t[i] >= t[i + 1] - v ? i + 1 : i;
}

/* sum w q x and sum w q^2 of the codes that a scale's inverse gives. */
static void value_sums(const float *x, float inverse, float *qx, float *q2) {
    *qx = *q2 = 0;
    for (int i = 0; i < QK_SMALL; i++) {
        float q = (float)wan_iq4_values[nearest_value(inverse * x[i])], w = x[i] * x[i];
        *qx += w * q * x[i];
        *q2 += w * q * q;
    }
}

static float fit_values(const float *x) {
    float extreme = wan_extreme(x, QK_SMALL), first = (float)wan_iq4_values[0], qx, q2;
    if (wan_abs(extreme) < WAN_NO_SIGNAL)
        return 0;
    value_sums(x, 1 / (-extreme / first), &qx, &q2);
    float d = q2 > 0 ? qx / q2 : 0, best = d * qx;
    for (int i = -7; i <= 7; i++) {
        value_sums(x, ((float)i + first) / extreme, &qx, &q2);
        if (q2 > 0 && qx * qx > best * q2) {
            d = qx / q2;
            best = d * qx;
        }
    }
    return d;
}

static void value_codes(const float *x, float d, uint8_t *qs) {
    uint8_t code[QK_SMALL];
    float id = wan_inverse(d);
    for (int i = 0; i < QK_SMALL; i++)
        code[i] = (uint8_t)nearest_value(id * x[i]);
    store_nibbles(qs, code);
}

void wan_pack_iq4_nl(uint8_t *b, const float *x) {
    float d = fit_values(x);
    store_half(b, d);
    value_codes(x, d, b + 2);
}

void wan_pack_iq4_xs(uint8_t *b, const float *x) {
    float scale[8];
    for (int j = 0; j < 8; j++)
        scale[j] = fit_values(x + 32 * j);
    float d = -wan_extreme(scale, 8) / 32, id = wan_inverse(d);
    memset(b, 0, 8);
    store_half(b, d);
    unsigned high = 0;
    for (int j = 0; j < 8; j++) {
        int l = wan_clamp(wan_nearest(id * scale[j]), -32, 31);
        value_codes(x + 32 * j, d * (float)l, b + 8 + 16 * j);
        unsigned bits = (unsigned)(l + 32);
        b[4 + j / 2] |= (uint8_t)((bits & 15) << 4 * (j % 2));
        high |= (bits >> 4) << 2 * j;
    }
    wan_store_16(b + 2, (uint16_t)high);
}
