/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_tile.h - what tiles of products share, in the words of kernels_vector.h. */
#ifndef WAN_BACKEND_CPU_KERNELS_TILE_H
#define WAN_BACKEND_CPU_KERNELS_TILE_H

#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))

/* Before a loop of at most 12 turns that must leave none, one that must stay, and one that must not
 * go further.  Each compiler passes over the other's words in silence. */
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#define UNROLLED_BY_4 _Pragma("clang loop unroll_count(4)")
#else
#define UNROLLED _Pragma("GCC unroll 12")
#define ROLLED _Pragma("GCC unroll 1")
#define UNROLLED_BY_4 _Pragma("GCC unroll 4")
#endif

static __attribute__((noinline)) void store_part(int rows, float *dst, int64_t ld, int cols,
                                                 const float *sums, bool add) {
    for (int r = 0; r < rows; r++, dst += ld, sums += NR)
        for (int j = 0; j < cols; j++)
            dst[j] = add ? dst[j] + sums[j] : sums[j];
}

/* Sums of whole rows go straight from registers.  Every loop over rows, here and in a tile, must be
 * unrolled for good, or the sums live in memory meanwhile. */
INLINE void store_tile(int rows, float *dst, int64_t ld, int cols, vec (*s)[2], bool add) {
    if (cols == NR) {
        UNROLLED
        for (int r = 0; r < rows; r++, dst += ld) {
            v_store(dst, add ? v_add(v_load(dst), s[r][0]) : s[r][0]);
            v_store(dst + LANES, add ? v_add(v_load(dst + LANES), s[r][1]) : s[r][1]);
        }
        return;
    }
    float sums[CPU_MR_MAX * NR];
    UNROLLED
    for (int r = 0; r < rows; r++) {
        v_store(sums + r * NR, s[r][0]);
        v_store(sums + r * NR + LANES, s[r][1]);
    }
    store_part(rows, dst, ld, cols, sums, add);
}

/* tile(rows, ...) with `rows` a constant, as it must be for sums to live in registers.  Numbers of
 * rows past `most` are never asked for and vanish. */
/* clang-format off */
#define ROWS_CASE(R, most, tile, ...) case R <= (most) ? R : -R: tile(R <= (most) ? R : 1, __VA_ARGS__); break;
#define BY_ROWS(...) \
    switch (rows) { \
    ROWS_CASE(1, __VA_ARGS__) ROWS_CASE(2, __VA_ARGS__) ROWS_CASE(3, __VA_ARGS__) ROWS_CASE(4, __VA_ARGS__) \
    ROWS_CASE(5, __VA_ARGS__) ROWS_CASE(6, __VA_ARGS__) ROWS_CASE(7, __VA_ARGS__) ROWS_CASE(8, __VA_ARGS__) \
    ROWS_CASE(9, __VA_ARGS__) ROWS_CASE(10, __VA_ARGS__) ROWS_CASE(11, __VA_ARGS__) ROWS_CASE(12, __VA_ARGS__) \
    }
/* tile(rows, halves, ...): one half of NR columns where that is enough. */
#define BY_ROWS_AND_HALVES(most, tile, ...) \
    if (cols > LANES) \
        BY_ROWS(most, tile, 2, __VA_ARGS__) \
    else \
        BY_ROWS(most, tile, 1, __VA_ARGS__)
/* clang-format on */

#endif
