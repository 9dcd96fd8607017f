/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_vector.h - the vector kernels, written once.
 * An instruction set's file defines the words below for its registers, includes this, and fills the
 * table:
 *   vec, LANES     a register of floats and how many
 *   MR, NR         the tile; NR = 2 LANES, and 2 MR sums + 3 fit the registers
 *   v_zero v_set v_load v_store v_load_part v_store_part (n < LANES)
 *   v_add v_sub v_mul v_div v_max (NaN when b is)   v_fma (a b + c)   v_fnma (c - a b)   v_round
 *   v_below        x < limit ? a : b
 *   v_unless_below x < limit ? 0 : a
 *   v_power        2^n for whole n, -126..127
 *   v_even v_odd v_swap (within pairs)   v_fmaddsub (a b - c, a b + c)
 *   v_from_f16 v_from_bf16 v_from_i8 (from memory)
 *   v_set_pair v_low v_high b_store (kernels_bf16.h, with BF16_MR)
 *   wide, w_zero w_add (sum += x) w_add_square w_total: sums in double
 *   transpose_words (kernels_transpose.h) and the words of kernels_unpack.h
 * Results depend on the values alone, not on where in a row they stand. */
#ifndef WAN_BACKEND_CPU_KERNELS_VECTOR_H
#define WAN_BACKEND_CPU_KERNELS_VECTOR_H

#include <math.h>
#include <string.h>

#include "backend/cpu/kernels_tile.h"

/* `rows` and `halves` (of NR) are constants where this is used, so the sums live in registers: a
 * step is `halves` loads of the panel, `rows` broadcasts and rows * halves multiply-adds. */
INLINE void tile(int rows, int halves, float *dst, int64_t ld, int cols, const float *const *a,
                 int64_t k, const float *panel, bool add) {
    vec s[MR][2];
    UNROLLED
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = v_zero();
    for (int64_t i = 0; i < k; i++) {
        vec p0 = v_load(panel + i * NR), p1 = halves == 2 ? v_load(panel + i * NR + LANES) : p0;
        UNROLLED
        for (int r = 0; r < rows; r++) {
            vec x = v_set(a[r][i]);
            s[r][0] = v_fma(x, p0, s[r][0]);
            if (halves == 2)
                s[r][1] = v_fma(x, p1, s[r][1]);
        }
    }
    store_tile(rows, dst, ld, cols, s, add);
}

INLINE void tile_columns(int rows, float *dst, int64_t ld, const float *a, int64_t lda, int64_t k,
                         const float *panel) {
    vec s[MR][2];
    UNROLLED
    for (int r = 0; r < rows; r++) {
        s[r][0] = v_load(dst + r * ld);
        s[r][1] = v_load(dst + r * ld + LANES);
    }
    for (int64_t i = 0; i < k; i++) {
        vec p0 = v_load(panel + i * NR), p1 = v_load(panel + i * NR + LANES);
        UNROLLED
        for (int r = 0; r < rows; r++) {
            vec x = v_set(a[i * lda + r]);
            s[r][0] = v_fma(x, p0, s[r][0]);
            s[r][1] = v_fma(x, p1, s[r][1]);
        }
    }
    UNROLLED
    for (int r = 0; r < rows; r++) {
        v_store(dst + r * ld, s[r][0]);
        v_store(dst + r * ld + LANES, s[r][1]);
    }
}

static void gemm_tile(float *dst, int64_t ld, int rows, int cols, const float *const *a, int64_t k,
                      const float *panel, bool add) {
    BY_ROWS_AND_HALVES(MR, tile, dst, ld, cols, a, k, panel, add)
}

static void gemm_columns(float *dst, int64_t ld, int rows, const float *a, int64_t lda, int64_t k,
                         const float *panel) {
    BY_ROWS(MR, tile_columns, dst, ld, a, lda, k, panel)
}

static void transpose(float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows,
                      int64_t cols) {
    transpose_words((char *)dst, 4 * dst_ld, (const char *)src, 4 * src_ld, rows, cols);
}

/* exp for x <= 0 to about an ulp: x = n ln 2 + r with |r| <= ln(2) / 2, exp(r) = 1 + r + r^2 q(r)
 * with q a minimax fit. It is 0 where the result would be subnormal. */
INLINE vec v_exp_falling(vec x) {
    const float lowest = -87.33654f; /* n = -126 */
    vec t = v_max(v_set(lowest), x);
    vec n = v_round(v_mul(t, v_set(0x1.715476p+0f)));
    vec r = v_fnma(n, v_set(0x1.62e4p-1f), t);
    r = v_fnma(n, v_set(0x1.7f7d1cp-20f), r);
    vec q = v_set(0x1.6a23cep-10f);
    q = v_fma(q, r, v_set(0x1.123a2p-7f));
    q = v_fma(q, r, v_set(0x1.5558f2p-5f));
    q = v_fma(q, r, v_set(0x1.555492p-3f));
    q = v_fma(q, r, v_set(0x1.fffffcp-2f));
    vec y = v_add(v_fma(v_mul(r, r), q, r), v_set(1));
    return v_unless_below(x, v_set(lowest), v_mul(y, v_power(n)));
}

/* exp for any x; infinity from 2^127.5 on. */
INLINE vec v_exp(vec x) {
    const float highest = 88.3762f; /* n = 127 */
    vec y = v_exp_falling(v_below(v_set(highest), x, v_set(highest), x));
    return v_below(v_set(highest), x, v_set(INFINITY), y);
}

static void softmax_tile(float *s, int64_t keys, float *max, float *sum, float *factor) {
    vec old0 = v_load(max), old1 = v_load(max + LANES), top0 = old0, top1 = old1;
    for (int64_t i = 0; i < keys; i++) {
        top0 = v_max(top0, v_load(s + i * NR));
        top1 = v_max(top1, v_load(s + i * NR + LANES));
    }
    vec total0 = v_zero(), total1 = v_zero();
    for (int64_t i = 0; i < keys; i++) {
        vec e0 = v_exp_falling(v_sub(v_load(s + i * NR), top0));
        vec e1 = v_exp_falling(v_sub(v_load(s + i * NR + LANES), top1));
        v_store(s + i * NR, e0);
        v_store(s + i * NR + LANES, e1);
        total0 = v_add(total0, e0);
        total1 = v_add(total1, e1);
    }
    vec factor0 = v_exp_falling(v_sub(old0, top0)), factor1 = v_exp_falling(v_sub(old1, top1));
    v_store(factor, factor0);
    v_store(factor + LANES, factor1);
    v_store(sum, v_fma(v_load(sum), factor0, total0));
    v_store(sum + LANES, v_fma(v_load(sum + LANES), factor1, total1));
    v_store(max, top0);
    v_store(max + LANES, top1);
}

static void scale_columns(float *x, int64_t rows, const float *factor) {
    vec f0 = v_load(factor), f1 = v_load(factor + LANES);
    for (int64_t r = 0; r < rows; r++, x += NR) {
        v_store(x, v_mul(v_load(x), f0));
        v_store(x + LANES, v_mul(v_load(x + LANES), f1));
    }
}

#include "backend/cpu/kernels_bf16.h"
#include "backend/cpu/kernels_unpack.h"

INLINE vec v_silu(vec x) {
    return v_div(x, v_add(v_set(1), v_exp(v_sub(v_zero(), x))));
}

/* The formula of gelu_tanh_scalar. */
INLINE vec v_gelu_tanh(vec x) {
    vec cubed = v_mul(v_mul(v_mul(v_set(0.044715f), x), x), x);
    vec u2 = v_mul(v_set(1.5957691216057308f), v_add(x, cubed));
    return v_div(x, v_add(v_set(1), v_exp(v_sub(v_zero(), u2))));
}

static void silu(float *x, int64_t n) {
    for (; n >= LANES; n -= LANES, x += LANES)
        v_store(x, v_silu(v_load(x)));
    if (n)
        v_store_part(x, v_silu(v_load_part(x, (int)n)), (int)n);
}

static void gelu_tanh(float *x, int64_t n) {
    for (; n >= LANES; n -= LANES, x += LANES)
        v_store(x, v_gelu_tanh(v_load(x)));
    if (n)
        v_store_part(x, v_gelu_tanh(v_load_part(x, (int)n)), (int)n);
}

static double sum(const float *x, int64_t n) {
    wide s = w_zero();
    for (; n >= LANES; n -= LANES, x += LANES)
        w_add(&s, v_load(x));
    if (n)
        w_add(&s, v_load_part(x, (int)n));
    return w_total(&s);
}

static double sum_squares(const float *x, float mean, int64_t n) {
    wide s = w_zero();
    for (; n >= LANES; n -= LANES, x += LANES)
        w_add_square(&s, v_sub(v_load(x), v_set(mean)));
    double total = w_total(&s);
    for (int64_t i = 0; i < n; i++) {
        float d = x[i] - mean;
        total += (double)d * d;
    }
    return total;
}

static void normalise(float *dst, const float *x, float mean, float scale, float plus,
                      const float *gain, const float *shift, int64_t n) {
    vec m = v_set(mean), s = v_set(scale), p = v_set(plus), zero = v_zero();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec g = v_add(p, gain ? v_load(gain + i) : zero);
        v_store(dst + i,
                v_fma(v_mul(v_sub(v_load(x + i), m), s), g, shift ? v_load(shift + i) : zero));
    }
    if (i == n)
        return;
    int rest = (int)(n - i);
    vec g = v_add(p, gain ? v_load_part(gain + i, rest) : zero),
        t = shift ? v_load_part(shift + i, rest) : zero;
    v_store_part(dst + i, v_fma(v_mul(v_sub(v_load_part(x + i, rest), m), s), g, t), rest);
}

INLINE vec v_rotate(vec x, vec turn) {
    return v_fmaddsub(x, v_even(turn), v_mul(v_swap(x), v_odd(turn)));
}

static void rotate(float *x, const float *turn, int64_t n) {
    for (; n >= LANES; n -= LANES, x += LANES, turn += LANES)
        v_store(x, v_rotate(v_load(x), v_load(turn)));
    if (n)
        v_store_part(x, v_rotate(v_load_part(x, (int)n), v_load_part(turn, (int)n)), (int)n);
}

INLINE void fill_table(cpu_kernels *k) {
    *k = (cpu_kernels){
        .mr = MR,
        .nr = NR,
        .gemm_tile = gemm_tile,
        .gemm_columns = gemm_columns,
        .transpose = transpose,
        .bf16_mr = BF16_MR,
        .bf16_depth = CPU_BF16_DEPTH,
        .bf16_outputs = CPU_BF16_OUTPUTS,
        .bf16_tile = bf16_tile,
        .to_bf16 = to_bf16,
        .pack_bf16 = pack_bf16,
        .pack_pairs = pack_pairs,
        .softmax_tile = softmax_tile,
        .softmax_bf16 = softmax_bf16,
        .scale_columns = scale_columns,
        .gelu_tanh = gelu_tanh,
        .silu = silu,
        .sum = sum,
        .sum_squares = sum_squares,
        .normalise = normalise,
        .rotate = rotate,
    };
    fill_unpack(k);
}

#endif
