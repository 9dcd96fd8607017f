/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_pairs.h - panels of bf16 pairs, for a file that has NR, transpose_words and its own
 * to_bf16. */
#ifndef WAN_BACKEND_CPU_KERNELS_PAIRS_H
#define WAN_BACKEND_CPU_KERNELS_PAIRS_H

static void pack_pairs(uint16_t *panel, const uint16_t *src, int64_t src_ld, int64_t rows,
                       int64_t cols) {
    if (rows < NR)
        memset(panel, 0, sizeof *panel * (size_t)(cols * NR));
    transpose_words((char *)panel, 4 * NR, (const char *)src, (int64_t)sizeof *src * src_ld, rows,
                    cols / 2);
}

static void pack_bf16(uint16_t *panel, const float *src, int64_t src_ld, int64_t rows,
                      int64_t cols) {
    enum { PIECE = 128 }; /* columns rounded at a time */
    uint16_t some[NR * PIECE];
    for (int64_t at = 0; at < cols; at += PIECE) {
        int64_t n = cols - at < PIECE ? cols - at : PIECE;
        for (int64_t r = 0; r < rows; r++) {
            to_bf16(some + r * PIECE, src + r * src_ld + at, n);
            if (n % 2)
                some[r * PIECE + n] = 0;
        }
        pack_pairs(panel + at * NR, some, PIECE, rows, (n + 1) / 2 * 2);
    }
}

#endif
