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
 *   NR                    columns of a panel: 32
 * Four tiles are sums, of 32 rows by 32 columns; a step of 32 of the depth loads two tiles of rows
 * and two of the panel for four products, which is what the caches can bring meanwhile. */
#ifndef WAN_BACKEND_CPU_KERNELS_AMX_H
#define WAN_BACKEND_CPU_KERNELS_AMX_H

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 16, STEP = 32, MR = 2 * TILE };
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

/* What a tile of sums is made of: `parts` stretches of depth k, one after the other in the panel.
 */
typedef struct parts {
    const uint16_t *const *row; /* of the first; `step` further on of the next */
    int64_t step, count, k;
    int rows;
    const uint16_t *panel;
    int64_t ahead; /* bytes */
} parts;

/* Rows [from, from + 16) of a part; those past the last are not looked at. */
INLINE band part_band(const parts *p, int64_t part, int from, const uint16_t **own) {
    const uint16_t *const *row = p->row + part * p->step + from;
    if (p->rows - from >= TILE)
        return band_of(row);
    for (int r = 0; r < TILE; r++)
        own[r] = row[from + r < p->rows ? r : p->rows - from - 1];
    return band_of(own);
}

/* What other sums will soon be made of. */
INLINE void fetch(const band *b, int64_t at) {
    for (int r = 0; r < TILE; r++)
        __builtin_prefetch((const char *)b->row[r] + at, 0, 2);
}

/* A step of depth n <= 32. */
INLINE void step(bool tall, bool broad, const band *bands, int64_t i, int64_t n,
                 const uint16_t *right, copies *own) {
    int64_t stride;
    uint16_t(*copy)[TILE * STEP] = own->lines[i / STEP % 2];
    if (n < STEP) {
        memset(own->panel, 0, sizeof own->panel);
        right = memcpy(own->panel, right, sizeof *right * (size_t)(n * NR));
    }
    const uint16_t *left = lines_of(&bands[0], i, n, copy[0], &stride);
    t_load(4, left, stride);
    t_load(6, right, PANEL_STRIDE);
    t_dot(0, 4, 6);
    if (broad) {
        t_load(7, right + STEP, PANEL_STRIDE);
        t_dot(1, 4, 7);
    }
    if (tall) {
        left = lines_of(&bands[1], i, n, copy[1], &stride);
        t_load(5, left, stride);
        t_dot(2, 5, 6);
        if (broad)
            t_dot(3, 5, 7);
    }
}

/* c [16 or 32, 16 or 32] (+)= the parts; tall and broad are constants where this is used. */
INLINE void tile(bool tall, bool broad, char *c, int64_t ld, const parts *p, bool add) {
    copies own __attribute__((aligned(64)));
    const uint16_t *row[2][TILE], *right = p->panel;
    char *low = c + TILE * ld;
    t_zero(0);
    t_zero(1);
    t_zero(2);
    t_zero(3);
    if (add) {
        t_load(0, c, ld);
        if (broad)
            t_load(1, c + 64, ld);
        if (tall)
            t_load(2, low, ld);
        if (tall && broad)
            t_load(3, low + 64, ld);
    }
    for (int64_t part = 0; part < p->count; part++, right += p->k * NR) {
        band bands[2] = {part_band(p, part, 0, row[0])};
        if (tall)
            bands[1] = part_band(p, part, TILE, row[1]);
        for (int64_t i = 0; i < p->k; i += STEP) {
            int64_t n = p->k - i < STEP ? p->k - i : STEP;
            if (p->ahead && part == 0) {
                fetch(&bands[0], 2 * i + p->ahead);
                if (tall)
                    fetch(&bands[1], 2 * i + p->ahead);
            }
            step(tall, broad, bands, i, n, right + i * NR, &own);
        }
    }
    t_store(0, c, ld);
    if (broad)
        t_store(1, c + 64, ld);
    if (tall)
        t_store(2, low, ld);
    if (tall && broad)
        t_store(3, low + 64, ld);
}

/* A number's sum is made in the same order whatever `rows` and `cols` are. */
static void sum_parts(float *dst, int64_t ld, int cols, const parts *p, bool add) {
    float sums[MR * NR] __attribute__((aligned(64)));
    int rows = p->rows;
    bool tall = rows > TILE, broad = cols > TILE, whole = rows % TILE == 0 && cols % TILE == 0;
    char *c = (char *)dst;
    int64_t stride = ld * (int64_t)sizeof *dst;
    if (!whole) {
        memset(sums, 0, sizeof sums);
        for (int r = 0; add && r < rows; r++)
            memcpy(sums + r * NR, dst + r * ld, sizeof *dst * (size_t)cols);
        c = (char *)sums;
        stride = SUMS_STRIDE;
    }
    t_begin();
    if (tall && broad)
        tile(true, true, c, stride, p, add);
    else if (tall)
        tile(true, false, c, stride, p, add);
    else if (broad)
        tile(false, true, c, stride, p, add);
    else
        tile(false, false, c, stride, p, add);
    for (int r = 0; !whole && r < rows; r++)
        memcpy(dst + r * ld, sums + r * NR, sizeof *dst * (size_t)cols);
}

static void bf16_tile(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                      int64_t k, const uint16_t *panel, bool add) {
    parts p = {.row = a, .count = 1, .k = k, .rows = rows, .panel = panel};
    sum_parts(dst, ld, cols, &p, add);
}

static void bf16_parts(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                       int64_t step, int parts_of, int64_t k, const uint16_t *panel,
                       int64_t ahead) {
    parts p = {.row = a,
               .step = step,
               .count = parts_of,
               .k = k,
               .rows = rows,
               .panel = panel,
               .ahead = ahead};
    sum_parts(dst, ld, cols, &p, true);
}

#endif
