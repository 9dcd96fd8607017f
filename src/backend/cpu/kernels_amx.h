/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_amx.h - products of bf16 in tiles of 16 x 16 sums; kernels_amx.c includes it for the
 * machine, tests/unit/kernels_amx_test.c for a model of one.  Words, where n, a and b are numbers
 * of tiles, 0 to 7, written out, and a tile is 16 rows of 64 bytes:
 *   t_begin()             must have been called on this thread
 *   t_zero(n)
 *   t_load(n, p, stride)  from memory, rows `stride` bytes apart
 *   t_store(n, p, stride)
 *   t_dot(n, a, b)        n += a times b: rows of 32 bf16 by 16 rows of 16 pairs
 *   t_copy(p, q, n)       n <= 32 bf16 from q to p, then zeros up to 32
 * Four tiles are sums, of 32 rows by 32 columns; a step of 32 of the depth loads two tiles of rows
 * and two of the panel for four products, which is what the caches can bring meanwhile. */
#ifndef WAN_BACKEND_CPU_KERNELS_AMX_H
#define WAN_BACKEND_CPU_KERNELS_AMX_H

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 16, STEP = 32, MR = 2 * TILE, NR = 2 * TILE };
enum { PANEL_STRIDE = 4 * NR, LINE_STRIDE = 2 * STEP, SUMS_STRIDE = 4 * NR };

/* 16 rows of the left operand. */
typedef struct band {
    const uint16_t *const *row;
    bool even;      /* as far from each other everywhere: `stride` bytes */
    int64_t stride; /* then they need no copy */
} band;

/* What a thread copies to: two pieces in turn, so that one is not written while it is still read.
 */
typedef struct copies {
    uint16_t lines[2][2][TILE * STEP], panel[STEP * NR];
} copies;

INLINE band band_of(const uint16_t *const *row) {
    uintptr_t stride = (uintptr_t)row[1] - (uintptr_t)row[0], off = 0;
    for (int r = 2; r < TILE; r++)
        off |= (uintptr_t)row[r] - (uintptr_t)row[r - 1] - stride;
    return (band){row, !off, (int64_t)stride};
}

/* Numbers [i, i + n) of 16 rows, as a tile wants them. */
INLINE const uint16_t *lines_of(const band *b, int64_t i, int64_t n, uint16_t *copy,
                                int64_t *stride) {
    if (b->even && n == STEP) {
        *stride = b->stride;
        return b->row[0] + i;
    }
    for (int r = 0; r < TILE; r++)
        t_copy(copy + r * STEP, b->row[r] + i, n);
    *stride = LINE_STRIDE;
    return copy;
}

/* c [16 or 32, 16 or 32] (+)= bands times panel; tall and wide are constants where this is used. */
INLINE void tile(bool tall, bool wide, char *c, int64_t ld, const band *bands, int64_t k,
                 const uint16_t *panel, bool add) {
    copies own __attribute__((aligned(64)));
    char *low = c + TILE * ld;
    t_zero(0);
    t_zero(1);
    t_zero(2);
    t_zero(3);
    if (add) {
        t_load(0, c, ld);
        if (wide)
            t_load(1, c + 64, ld);
        if (tall)
            t_load(2, low, ld);
        if (tall && wide)
            t_load(3, low + 64, ld);
    }
    for (int64_t i = 0; i < k; i += STEP) {
        int64_t n = k - i < STEP ? k - i : STEP, stride;
        uint16_t(*copy)[TILE * STEP] = own.lines[i / STEP % 2];
        const uint16_t *right = panel + i * NR;
        if (n < STEP) {
            memset(own.panel, 0, sizeof own.panel);
            right = memcpy(own.panel, right, sizeof *right * (size_t)(n * NR));
        }
        const uint16_t *left = lines_of(&bands[0], i, n, copy[0], &stride);
        t_load(4, left, stride);
        t_load(6, right, PANEL_STRIDE);
        t_dot(0, 4, 6);
        if (wide) {
            t_load(7, right + STEP, PANEL_STRIDE);
            t_dot(1, 4, 7);
        }
        if (tall) {
            left = lines_of(&bands[1], i, n, copy[1], &stride);
            t_load(5, left, stride);
            t_dot(2, 5, 6);
            if (wide)
                t_dot(3, 5, 7);
        }
    }
    t_store(0, c, ld);
    if (wide)
        t_store(1, c + 64, ld);
    if (tall)
        t_store(2, low, ld);
    if (tall && wide)
        t_store(3, low + 64, ld);
}

/* A number's sum is made in the same order whatever `rows` and `cols` are. */
static void bf16_tile(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                      int64_t k, const uint16_t *panel, bool add) {
    const uint16_t *row[MR], *const *all = a;
    float sums[MR * NR] __attribute__((aligned(64)));
    bool tall = rows > TILE, wide = cols > TILE, whole = rows % TILE == 0 && cols % TILE == 0;
    char *c = (char *)dst;
    int64_t stride = ld * (int64_t)sizeof *dst;
    if (rows % TILE) { /* those past the last are not looked at */
        memcpy(row, a, sizeof *a * (size_t)rows);
        for (int r = rows; r % TILE; r++)
            row[r] = a[rows - 1];
        all = row;
    }
    band bands[2] = {band_of(all), tall ? band_of(all + TILE) : (band){0}};
    if (!whole) {
        memset(sums, 0, sizeof sums);
        for (int r = 0; add && r < rows; r++)
            memcpy(sums + r * NR, dst + r * ld, sizeof *dst * (size_t)cols);
        c = (char *)sums;
        stride = SUMS_STRIDE;
    }
    t_begin();
    if (tall && wide)
        tile(true, true, c, stride, bands, k, panel, add);
    else if (tall)
        tile(true, false, c, stride, bands, k, panel, add);
    else if (wide)
        tile(false, true, c, stride, bands, k, panel, add);
    else
        tile(false, false, c, stride, bands, k, panel, add);
    for (int r = 0; !whole && r < rows; r++)
        memcpy(dst + r * ld, sums + r * NR, sizeof *dst * (size_t)cols);
}

#endif
