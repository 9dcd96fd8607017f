/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_softmax.h - softmax weights in bf16, in the words of kernels_vector.h and three more:
 * v_scale2 (a 2^n for whole n), v_pairs (of two floats in each lane, rounded), v_add_pairs (sum +=
 * both of each lane). */
#ifndef WAN_BACKEND_CPU_KERNELS_SOFTMAX_H
#define WAN_BACKEND_CPU_KERNELS_SOFTMAX_H

/* 2^x for x <= 0, at least 2^-126: x = n + r with |r| <= 1/2, and 2^r = 1 + r q(r) with q a minimax
 * fit.  Off by 1.0e-4, a fortieth of what rounding to bf16 may add; 2^0 is 1. */
INLINE vec v_exp2_falling(vec x) {
    vec t = v_max(v_set(-126), x), n = v_round(t), r = v_sub(t, n);
    vec q = v_fma(v_set(0x1.c2a25cp-5f), r, v_set(0x1.f00c4ep-3f));
    q = v_fma(q, r, v_set(0x1.62f5fap-1f));
    return v_scale2(v_fma(q, r, v_set(1)), n);
}

/* The larger of `top` and a column of s; two at a time, as a maximum waits for the one before. */
INLINE vec column_max(const float *s, int64_t keys, vec top) {
    vec other = top;
    for (; keys >= 2; keys -= 2, s += 2 * NR) {
        top = v_max(top, v_load(s));
        other = v_max(other, v_load(s + NR));
    }
    return v_max(keys ? v_max(top, v_load(s)) : top, other);
}

/* The LANES queries from `s` and `panel` on. */
INLINE void softmax_bf16_lanes(uint16_t *panel, const float *s, int64_t keys, float *max,
                               float *sum, float *factor) {
    vec old = v_load(max), top = column_max(s, keys, old), total = v_zero();
    for (; keys > 0; keys -= 2, s += 2 * NR, panel += 2 * NR) {
        vec low = v_exp2_falling(v_sub(v_load(s), top));
        vec high = keys > 1 ? v_exp2_falling(v_sub(v_load(s + NR), top)) : v_zero();
        vec pairs = v_pairs(low, high);
        v_store((float *)(void *)panel, pairs);
        total = v_add_pairs(total, pairs);
    }
    vec by = v_exp2_falling(v_sub(old, top));
    v_store(factor, by);
    v_store(sum, v_fma(v_load(sum), by, total));
    v_store(max, top);
}

static void softmax_bf16(uint16_t *panel, const float *s, int64_t keys, float *max, float *sum,
                         float *factor) {
    for (int at = 0; at < NR; at += LANES)
        softmax_bf16_lanes(panel + 2 * at, s + at, keys, max + at, sum + at, factor + at);
}

#endif
