/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_bf16.h - bf16 products by multiply-adds of f32, part of kernels_vector.h and in its
 * words. For machines without instructions for them.  A 32-bit lane holds a pair of bf16 numbers;
 * v_low and v_high make each of the two a float, which is exact.  b_store rounds LANES floats to
 * bf16; BF16_MR rows by NR sums, 4 halves of a panel's row and 2 of a pair fit the registers. */
#ifndef WAN_BACKEND_CPU_KERNELS_BF16_H
#define WAN_BACKEND_CPU_KERNELS_BF16_H

INLINE vec set_pair(const uint16_t *p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return v_set_pair(pair);
}

INLINE vec load_pairs(const uint16_t *p) {
    return v_load((const float *)(const void *)p);
}

INLINE void tile_bf16(int rows, int halves, float *dst, int64_t ld, int cols,
                      const uint16_t *const *a, int64_t k, const uint16_t *panel, bool add) {
    vec s[BF16_MR][2];
    UNROLLED
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = v_zero();
    for (int64_t i = 0; i < k; i += 2, panel += 2 * NR) {
        vec p0 = load_pairs(panel), p1 = halves == 2 ? load_pairs(panel + 2 * LANES) : p0;
        vec low0 = v_low(p0), high0 = v_high(p0), low1 = v_low(p1), high1 = v_high(p1);
        UNROLLED
        for (int r = 0; r < rows; r++) {
            vec pair = set_pair(a[r] + i), x = v_low(pair), y = v_high(pair);
            s[r][0] = v_fma(y, high0, v_fma(x, low0, s[r][0]));
            if (halves == 2)
                s[r][1] = v_fma(y, high1, v_fma(x, low1, s[r][1]));
        }
    }
    store_tile(rows, dst, ld, cols, s, add);
}

static void bf16_tile(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                      int64_t k, const uint16_t *panel, bool add) {
    BY_ROWS_AND_HALVES(BF16_MR, tile_bf16, dst, ld, cols, a, k, panel, add)
}

static void to_bf16(uint16_t *dst, const float *src, int64_t n) {
    for (; n >= LANES; n -= LANES, src += LANES, dst += LANES)
        b_store(dst, v_load(src));
    if (n) {
        uint16_t rest[LANES];
        b_store(rest, v_load_part(src, (int)n));
        memcpy(dst, rest, sizeof *dst * (size_t)n);
    }
}

#include "backend/cpu/kernels_pairs.h"

INLINE vec v_scale2(vec a, vec n) {
    return v_mul(a, v_power(n));
}

INLINE vec v_pairs(vec low, vec high) {
    uint16_t a[LANES], b[LANES], pairs[2 * LANES];
    b_store(a, low);
    b_store(b, high);
    for (int i = 0; i < LANES; i++) {
        pairs[2 * i] = a[i];
        pairs[2 * i + 1] = b[i];
    }
    return load_pairs(pairs);
}

INLINE vec v_add_pairs(vec sum, vec pairs) {
    return v_add(v_add(sum, v_low(pairs)), v_high(pairs));
}

#include "backend/cpu/kernels_softmax.h"

#endif
