/* SPDX-License-Identifier: Apache-2.0 */
/* FEAT_I8MM: SMMLA adds the products of 2 x 8 by 8 x 2 codes to 2 x 2 sums.  Rows are those of
 * kernels_neon.c. */
#include <assert.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_words_neon.h"

#include "backend/cpu/kernels_tile.h"

/* A group of a panel: for each 8 codes of depth four pairs of columns, 8 codes of each; then for
 * each pair its two scales twice, as a block of sums wants them. */
enum {
    INT8_MR = 6, /* three pairs of rows: 12 blocks of two kinds of sums, 4 of a panel, 2 of rows */
    GROUP_ROW = 4 + 32,
    STEP = 8 * NR, /* bytes of a panel for 8 codes of depth */
    GROUP_SCALES = 4 * STEP,
    GROUP_PANEL = GROUP_SCALES + 8 * NR
};

static_assert(NR == 8, "four pairs of columns");

static void pack_int8(void *panel, const void *src, size_t stride, int64_t rows, int64_t groups) {
    char *p = panel;
    const char *from = src;
    for (int64_t g = 0; g < groups; g++, p += GROUP_PANEL, from += GROUP_ROW) {
        if (rows < NR)
            memset(p, 0, GROUP_PANEL);
        for (int64_t r = 0; r < rows; r++) {
            const char *row = from + (size_t)r * stride;
            for (int i = 0; i < 4; i++)
                memcpy(p + STEP * i + 8 * r, row + 4 + 8 * i, 8);
            char *scale = p + GROUP_SCALES + r / 2 * 16 + r % 2 * 4;
            memcpy(scale, row, 4);
            memcpy(scale + 8, row, 4);
        }
    }
}

WORD int8x16_t load(const char *p) {
    return vld1q_s8((const void *)p);
}

WORD int8x16_t low_halves(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

WORD int8x16_t high_halves(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

/* 16 codes of depth. */
INLINE void half_group(int pairs, vint (*d)[4], const char *const *a, int64_t at, const char *p) {
    int8x16_t low[INT8_MR / 2], high[INT8_MR / 2];
    UNROLLED
    for (int r = 0; r < pairs; r++) {
        int8x16_t x = load(a[2 * r] + at), y = load(a[2 * r + 1] + at);
        low[r] = low_halves(x, y);
        high[r] = high_halves(x, y);
    }
    UNROLLED
    for (int c = 0; c < 4; c++) {
        int8x16_t p0 = load(p + 16 * c), p1 = load(p + STEP + 16 * c);
        UNROLLED
        for (int r = 0; r < pairs; r++)
            d[r][c] = vmmlaq_s32(vmmlaq_s32(d[r][c], low[r], p0), high[r], p1);
    }
}

/* A row's scale twice, then the next one's. */
WORD vec row_scales(const char *a, const char *b) {
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return vcombine_f32(vdup_n_f32(x), vdup_n_f32(y));
}

/* Blocks of two rows by two columns become rows. */
WORD vec row_of(vec left, vec right, bool second) {
    float64x2_t x = vreinterpretq_f64_f32(left), y = vreinterpretq_f64_f32(right);
    return vreinterpretq_f32_f64(second ? vzip2q_f64(x, y) : vzip1q_f64(x, y));
}

/* `rows` is a constant where this is used; a has an even number of rows. */
INLINE void tile(int rows, float *dst, int64_t ld, int cols, const char *const *a, int64_t groups,
                 const char *p, bool add) {
    const int pairs = (rows + 1) / 2;
    vec s[INT8_MR / 2][4], sums[INT8_MR][2];
    UNROLLED
    for (int r = 0; r < pairs; r++)
        s[r][0] = s[r][1] = s[r][2] = s[r][3] = v_zero();
    for (int64_t at = 0; at < groups * GROUP_ROW; at += GROUP_ROW, p += GROUP_PANEL) {
        vint d[INT8_MR / 2][4];
        UNROLLED
        for (int r = 0; r < pairs; r++)
            d[r][0] = d[r][1] = d[r][2] = d[r][3] = i_zero();
        half_group(pairs, d, a, at + 4, p);
        half_group(pairs, d, a, at + 20, p + 2 * STEP);
        UNROLLED
        for (int r = 0; r < pairs; r++) {
            vec scales = row_scales(a[2 * r] + at, a[2 * r + 1] + at);
            UNROLLED
            for (int c = 0; c < 4; c++) {
                vec w = v_load((const void *)(p + GROUP_SCALES + 16 * c));
                s[r][c] = v_fma(i_float(d[r][c]), v_mul(scales, w), s[r][c]);
            }
        }
    }
    UNROLLED
    for (int r = 0; r < rows; r++) {
        sums[r][0] = row_of(s[r / 2][0], s[r / 2][1], r % 2);
        sums[r][1] = row_of(s[r / 2][2], s[r / 2][3], r % 2);
    }
    store_tile(rows, dst, ld, cols, sums, add);
}

/* An odd last row stands in its pair twice. */
static void int8_tile(float *dst, int64_t ld, int rows, int cols, const void *const *a,
                      int64_t groups, const void *panel, bool add) {
    const char *row[INT8_MR];
    for (int r = 0; r < (rows + 1) / 2 * 2; r++)
        row[r] = a[r < rows ? r : rows - 1];
        /* clang-format off */
#define CASE(R) case R: tile(R, dst, ld, cols, row, groups, panel, add); break;
    /* clang-format on */
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) }
#undef CASE
}

void wan_cpu_kernels_neon_i8mm(cpu_kernels *k) {
    assert(k->int8_row == GROUP_ROW);
    k->fast_int8 = true;
    k->int8_mr = INT8_MR;
    k->int8_panel = GROUP_PANEL;
    k->pack_int8 = pack_int8;
    k->int8_tile = int8_tile;
}
