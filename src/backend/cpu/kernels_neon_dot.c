/* SPDX-License-Identifier: Apache-2.0 */
/* FEAT_DotProd: SDOT adds the products of four codes by four to each of 4 sums.  Rows and panels
 * are those of kernels_neon.c. */
#include <assert.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_words_neon.h"

#include "backend/cpu/kernels_tile.h"

/* Half a group is a register of a row: four words of four codes. With the words of the panel that
 * it meets, 8 registers, and two kinds of sums, 4 INT8_MR, that fits 32. */
enum {
    INT8_MR = 5,
    HALF = 16 * NR, /* bytes of a panel */
    GROUP_ROW = 4 + 32,
    GROUP_PANEL = 2 * HALF + 4 * NR
};

WORD int8x16_t load(const char *p) {
    return vld1q_s8((const void *)p);
}

#define DOT(word)                                                                                  \
    d[r][0] = vdotq_laneq_s32(d[r][0], p[2 * word], x, word);                                      \
    d[r][1] = vdotq_laneq_s32(d[r][1], p[2 * word + 1], x, word);

INLINE void half_group(int rows, vint (*d)[2], const char *const *a, int64_t at,
                       const char *panel) {
    int8x16_t p[8];
    UNROLLED
    for (int i = 0; i < 8; i++)
        p[i] = load(panel + 16 * i);
    UNROLLED
    for (int r = 0; r < rows; r++) {
        int8x16_t x = load(a[r] + at);
        DOT(0) DOT(1) DOT(2) DOT(3)
    }
}

/* `rows` is a constant where this is used. */
INLINE void tile(int rows, float *dst, int64_t ld, int cols, const char *const *a, int64_t groups,
                 const char *p, bool add) {
    vec s[INT8_MR][2];
    UNROLLED
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = v_zero();
    for (int64_t at = 0; at < groups * GROUP_ROW; at += GROUP_ROW, p += GROUP_PANEL) {
        vint d[INT8_MR][2];
        UNROLLED
        for (int r = 0; r < rows; r++)
            d[r][0] = d[r][1] = i_zero();
        half_group(rows, d, a, at + 4, p);
        half_group(rows, d, a, at + 20, p + HALF);
        const char *scales = p + 2 * HALF;
        vec w0 = v_load((const void *)scales), w1 = v_load((const void *)(scales + 16));
        UNROLLED
        for (int r = 0; r < rows; r++) {
            float scale;
            memcpy(&scale, a[r] + at, sizeof scale);
            s[r][0] = v_fma(i_float(d[r][0]), vmulq_n_f32(w0, scale), s[r][0]);
            s[r][1] = v_fma(i_float(d[r][1]), vmulq_n_f32(w1, scale), s[r][1]);
        }
    }
    store_tile(rows, dst, ld, cols, s, add);
}

static void int8_tile(float *dst, int64_t ld, int rows, int cols, const void *const *a,
                      int64_t groups, const void *panel, bool add) {
    const char *row[INT8_MR];
    for (int r = 0; r < rows; r++)
        row[r] = a[r];
        /* clang-format off */
#define CASE(R) case R: tile(R, dst, ld, cols, row, groups, panel, add); break;
    /* clang-format on */
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) }
#undef CASE
}

void wan_cpu_kernels_neon_dot(cpu_kernels *k) {
    assert(k->int8_row == GROUP_ROW && k->int8_panel == GROUP_PANEL);
    k->fast_int8 = true;
    k->int8_mr = INT8_MR;
    k->int8_tile = int8_tile;
}
