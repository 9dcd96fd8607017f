/* SPDX-License-Identifier: Apache-2.0 */
/* quantise_block.h - one block of each type, and the searches inside.
 * Numbers are finite. Sums run in element order and products from left to right: the bits depend
 * on it. */
#ifndef WAN_TENSOR_QUANTISE_BLOCK_H
#define WAN_TENSOR_QUANTISE_BLOCK_H

#include <stdbool.h>

#include "tensor/quants_block.h"

/* Each writes one block. */
void wan_pack_q8_0(uint8_t *b, const float *x);
void wan_pack_q4_0(uint8_t *b, const float *x);
void wan_pack_q4_1(uint8_t *b, const float *x);
void wan_pack_q5_0(uint8_t *b, const float *x);
void wan_pack_q5_1(uint8_t *b, const float *x);
void wan_pack_q2_k(uint8_t *b, const float *x);
void wan_pack_q3_k(uint8_t *b, const float *x);
void wan_pack_q4_k(uint8_t *b, const float *x);
void wan_pack_q5_k(uint8_t *b, const float *x);
void wan_pack_q6_k(uint8_t *b, const float *x);
void wan_pack_iq4_nl(uint8_t *b, const float *x);
void wan_pack_iq4_xs(uint8_t *b, const float *x);

#define WAN_NO_SIGNAL 1e-15f /* a group with nothing larger is zero */

/* Half to even, by adding a number whose last bit is worth 1. */
static inline int wan_nearest(float x) {
    return (int)(wan_float_bits(x + 12582912.0f) & 0x7fffff) - 0x400000;
}

static inline int wan_clamp(int v, int low, int high) {
    return v < low ? low : v > high ? high : v;
}

static inline float wan_abs(float x) {
    return x < 0 ? -x : x;
}

/* The element of largest absolute value, the first of equals. */
float wan_extreme(const float *x, int n);

/* 1 / d, and 0 where that is not finite. */
float wan_inverse(float d);

/* Scale and codes 0..2 top - 1 for x ~ scale * (code - top), weighted by x^2: 19 scales are tried.
 * A zero group has scale 0 and codes 0, like ggml's.  In all searches n <= 32. */
float wan_fit_signed(int n, int top, const float *x, uint8_t *code);

/* The same by starting with the obvious scale and moving single codes while that helps. */
float wan_fit_signed_steps(int n, int top, const float *x, uint8_t *code);

/* The search for x ~ scale * code - min with codes 0..top: scales (first + step * i + top) / range
 * for i = 0..steps. */
typedef struct affine_search {
    int top, steps;
    float first, step;
    bool absolute; /* the error is weighted |e|, not e^2 */
} affine_search;

/* Returns the scale; *min >= 0. */
float wan_fit_affine(const affine_search *how, int n, const float *x, const float *weight,
                     uint8_t *code, float *min);

#endif
