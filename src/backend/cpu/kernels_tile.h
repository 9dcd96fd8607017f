/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_tile.h - what tiles of products share, in the words of kernels_vector.h. */
#ifndef WAN_BACKEND_CPU_KERNELS_TILE_H
#define WAN_BACKEND_CPU_KERNELS_TILE_H

#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))

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
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++, dst += ld) {
            v_store(dst, add ? v_add(v_load(dst), s[r][0]) : s[r][0]);
            v_store(dst + LANES, add ? v_add(v_load(dst + LANES), s[r][1]) : s[r][1]);
        }
        return;
    }
    float sums[CPU_MR_MAX * NR];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        v_store(sums + r * NR, s[r][0]);
        v_store(sums + r * NR + LANES, s[r][1]);
    }
    store_part(rows, dst, ld, cols, sums, add);
}

/* One case for each number of rows; the ones past a tile's are never asked for and vanish. */
/* clang-format off */
#define EACH_ROWS(CASE) \
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
/* clang-format on */

#endif
