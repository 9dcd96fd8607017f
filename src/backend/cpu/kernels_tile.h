/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_tile.h - what tiles of products share, in the words of kernels_vector.h. */
#ifndef WAN_BACKEND_CPU_KERNELS_TILE_H
#define WAN_BACKEND_CPU_KERNELS_TILE_H

#include <stdbool.h>

#define INLINE static inline __attribute__((always_inline))

INLINE void store_tile_row(float *dst, vec s0, vec s1, int cols, bool add) {
    if (cols == NR) {
        v_store(dst, add ? v_add(v_load(dst), s0) : s0);
        v_store(dst + LANES, add ? v_add(v_load(dst + LANES), s1) : s1);
        return;
    }
    for (int at = 0; at < cols; at += LANES) {
        int n = cols - at < LANES ? cols - at : LANES;
        vec s = at ? s1 : s0;
        v_store_part(dst + at, add ? v_add(v_load_part(dst + at, n), s) : s, n);
    }
}

/* One case for each number of rows; the ones past a tile's are never asked for and vanish. */
/* clang-format off */
#define EACH_ROWS(CASE) \
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
/* clang-format on */

#endif
