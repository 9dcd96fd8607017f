/* SPDX-License-Identifier: Apache-2.0 */
/* quants_block.h - what those who read and those who write quantised blocks share. */
#ifndef WAN_TENSOR_QUANTS_BLOCK_H
#define WAN_TENSOR_QUANTS_BLOCK_H

#include "base/half.h"

enum { QK_SMALL = 32, QK_K = 256, K_SCALES = 12 };

/* The 16 values of IQ4_NL and IQ4_XS. */
extern const int8_t wan_iq4_values[16];

static inline uint16_t wan_load_16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t wan_load_32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline float wan_load_half(const uint8_t *p) {
    return wan_half_to_float(wan_load_16(p));
}

static inline void wan_store_16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* The eight 6-bit scales and minima of Q4_K and Q5_K. */
static inline int wan_k_scale(const uint8_t *sc, int j) {
    return j < 4 ? sc[j] & 63 : (sc[j + 4] & 15) | sc[j - 4] >> 6 << 4;
}

static inline int wan_k_min(const uint8_t *sc, int j) {
    return j < 4 ? sc[j + 4] & 63 : sc[j + 4] >> 4 | sc[j] >> 6 << 4;
}

/* The sixteen 6-bit scales of Q3_K, -32..31. */
static inline int wan_q3_k_scale(const uint8_t *sc, int j) {
    int low = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4;
    return (low | (sc[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
}

/* The eight 6-bit scales of IQ4_XS, -32..31; b is the block. */
static inline int wan_iq4_xs_scale(const uint8_t *b, int j) {
    int low = b[4 + j / 2] >> 4 * (j % 2) & 15;
    return (low | (wan_load_16(b + 2) >> 2 * j & 3) << 4) - 32;
}

/* One block of each K type. */
void wan_unpack_q2_k(float *dst, const uint8_t *b);
void wan_unpack_q3_k(float *dst, const uint8_t *b);
void wan_unpack_q4_k(float *dst, const uint8_t *b);
void wan_unpack_q5_k(float *dst, const uint8_t *b);
void wan_unpack_q6_k(float *dst, const uint8_t *b);

#endif
