/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_amx_int8.h - products of 8-bit codes in groups of 32 by tiles of 12 x 16 sums;
 * kernels_amx.c includes it for the machine, tests/unit/kernels_amx_int8_test.c for a model of one.
 * Words, where n, a and b are numbers of tiles, written out; tiles 0 to 3 are 12 rows of 16 32-bit
 * sums, 4 and 5 are 12 rows of 32 codes, 6 and 7 are 8 rows of 16 fours of codes:
 *   t_begin_int8()        must have been called on this thread
 *   t_zero(n)
 *   t_load(n, p, stride)  from memory, rows `stride` bytes apart
 *   t_store(n, p, stride)
 *   t_dot_int8(n, a, b)   n += a times b
 *   vec                   16 floats: v_zero v_set v_load v_store v_mul
 *   v_sum(s, a, b)        s + a * b, rounded once
 *   v_from_i32            of 16 integers in memory
 *   quantise half_float transpose_words, as for kernels_int8.h
 *
 * Every group has scales of its own, so its sums leave the tiles at once: through memory, to 24
 * registers of f32 sums that stay where they are for all groups of 12 rows and 32 columns.  That is
 * 24 times convert, multiply (the two scales) and multiply-add: 36 cycles on the two ports of wide
 * registers, which bounds it.  Meanwhile run 24 cycles of products, 24 stores of a line, and 64
 * loads on two ports.  From the loads of a tile to its sums in memory is three times as long, so
 * products are that many groups ahead of what is added up. */
#ifndef WAN_BACKEND_CPU_KERNELS_AMX_INT8_H
#define WAN_BACKEND_CPU_KERNELS_AMX_INT8_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    GROUP = 32,
    BLOCK = 12, /* rows of a tile */
    INT8_MR = 2 * BLOCK,
    INT8_NR = 32,
    INT8_WORDS = GROUP / 4, /* fours of codes: rows of a tile of the panel */
    /* A row is the codes of all its groups, which a tile loads where they lie, then their scales;
     * a group of a panel [INT8_WORDS, INT8_NR] fours of codes, then INT8_NR scales. */
    INT8_ROW = GROUP + 4,
    INT8_STRIDE = 4 * INT8_NR,
    INT8_SCALES = INT8_STRIDE * INT8_WORDS,
    INT8_PANEL = INT8_SCALES + 4 * INT8_NR,
    AHEAD = 3,
    SLOTS = 4,  /* more than AHEAD, a power of two */
    COPIED = 16 /* groups of rows that are copied together */
};

INLINE void put_scale(char *row, int64_t groups, int64_t group, float scale) {
    memcpy(row + GROUP * groups + 4 * group, &scale, sizeof scale);
}

static void amx_to_int8(void *row, const float *src, int64_t n) {
    char *to = row;
    int64_t groups = (n + GROUP - 1) / GROUP;
    for (int64_t g = 0; g < groups; g++) {
        float last[GROUP] = {0};
        const float *from = src + g * GROUP;
        if (n - g * GROUP < GROUP)
            from = memcpy(last, from, sizeof *src * (size_t)(n - g * GROUP));
        put_scale(to, groups, g, quantise((int8_t *)to + GROUP * g, from));
    }
}

static void amx_int8_from_q8_0(void *row, const void *src, int64_t groups) {
    const char *block = src;
    char *to = row;
    for (int64_t g = 0; g < groups; g++, block += 2 + GROUP) {
        uint16_t half;
        memcpy(&half, block, sizeof half);
        memcpy(to + GROUP * g, block + 2, GROUP);
        put_scale(to, groups, g, half_float(half));
    }
}

static void amx_int8_from_codes(void *row, const int8_t *src, float scale, int64_t n) {
    char *to = row;
    int64_t groups = (n + GROUP - 1) / GROUP;
    memcpy(to, src, (size_t)n);
    memset(to + n, 0, (size_t)(GROUP * groups - n));
    for (int64_t g = 0; g < groups; g++)
        put_scale(to, groups, g, scale);
}

static void amx_pack_int8(void *panel, const void *src, size_t stride, int64_t rows,
                          int64_t groups) {
    char *to = panel;
    const char *from = src;
    if (rows < INT8_NR)
        memset(to, 0, (size_t)(INT8_PANEL * groups));
    for (int64_t g = 0; g < groups; g++)
        transpose_words(to + INT8_PANEL * g, INT8_STRIDE, from + GROUP * g, (int64_t)stride, rows,
                        INT8_WORDS);
    transpose_words(to + INT8_SCALES, INT8_PANEL, from + GROUP * groups, (int64_t)stride, rows,
                    groups);
}

/* Whole blocks of rows, equally far apart, side by side with their scales. */
typedef struct blocks {
    const char *codes, *scales; /* of the first row */
    int64_t stride, count;      /* blocks */
} blocks;

/* What the tiles multiply next; the sums of group number n, of all blocks, go to slot n % SLOTS. */
typedef struct course {
    const char *codes, *panel;
    int64_t group, left; /* in the block, in all */
    unsigned n;
} course;

/* 12 rows by 16 or 32 columns of a group, where a, low and high are numbers of tiles. */
#define MULTIPLY(a, low, high)                                                                     \
    do {                                                                                           \
        t_zero(low);                                                                               \
        t_load(a, codes, stride);                                                                  \
        t_load(6, panel, INT8_STRIDE);                                                             \
        t_dot_int8(low, a, 6);                                                                     \
        t_store(low, sums, INT8_STRIDE);                                                           \
        if (broad) {                                                                               \
            t_zero(high);                                                                          \
            t_load(7, panel + 64, INT8_STRIDE);                                                    \
            t_dot_int8(high, a, 7);                                                                \
            t_store(high, sums + 16, INT8_STRIDE);                                                 \
        }                                                                                          \
    } while (0)

/* Neighbours in time use tiles of their own. */
INLINE void multiply(bool broad, bool odd, const char *codes, int64_t stride, const char *panel,
                     int32_t *sums) {
    if (odd)
        MULTIPLY(5, 2, 3);
    else
        MULTIPLY(4, 0, 1);
}

INLINE void go_on(bool broad, course *c, int64_t stride, int64_t groups,
                  int32_t (*slots)[BLOCK * INT8_NR]) {
    if (!c->left)
        return;
    multiply(broad, c->n % 2, c->codes, stride, c->panel, slots[c->n % SLOTS]);
    c->n++;
    c->left--;
    c->codes += GROUP;
    c->panel += INT8_PANEL;
    if (++c->group == groups) {
        c->group = 0;
        c->codes += BLOCK * stride - GROUP * groups;
        c->panel -= INT8_PANEL * groups;
    }
}

INLINE vec one_scale(const char *p) {
    float scale;
    memcpy(&scale, p, sizeof scale);
    return v_set(scale);
}

/* Adds the sums of a group, times its scales. */
INLINE void add_up(bool broad, vec (*s)[2], const int32_t *sums, const char *scales, int64_t stride,
                   const float *columns) {
    vec w0 = v_load(columns), w1 = broad ? v_load(columns + 16) : w0;
#pragma GCC unroll 12
    for (int r = 0; r < BLOCK; r++, sums += INT8_NR) {
        vec scale = one_scale(scales + r * stride);
        s[r][0] = v_sum(s[r][0], v_from_i32(sums), v_mul(scale, w0));
        if (broad)
            s[r][1] = v_sum(s[r][1], v_from_i32(sums + 16), v_mul(scale, w1));
    }
}

/* dst [12 * count, 16 or 32] (+)= rows times a panel; broad is a constant where this is used.  A
 * sum starts with what dst holds, so that its bits are the same however its groups are divided. */
INLINE void product(bool broad, float *dst, int64_t ld, const blocks *a, int64_t groups,
                    const char *panel, bool add) {
    int32_t slots[SLOTS][BLOCK * INT8_NR] __attribute__((aligned(64)));
    course c = {.codes = a->codes, .panel = panel, .left = a->count * groups};
    const char *scales = a->scales;
    int64_t stride = a->stride, count = a->count;
    unsigned n = 0;
    for (int i = 0; i < AHEAD; i++)
        go_on(broad, &c, stride, groups, slots);
    for (int64_t b = 0; b < count; b++, dst += BLOCK * ld) {
        vec s[BLOCK][2];
        const char *at = scales + b * BLOCK * stride, *columns = panel + INT8_SCALES;
#pragma GCC unroll 12
        for (int r = 0; r < BLOCK; r++) {
            s[r][0] = add ? v_load(dst + r * ld) : v_zero();
            s[r][1] = broad && add ? v_load(dst + r * ld + 16) : v_zero();
        }
        for (int64_t g = 0; g < groups; g++, at += 4, columns += INT8_PANEL) {
            go_on(broad, &c, stride, groups, slots);
            add_up(broad, s, slots[n++ % SLOTS], at, stride, (const float *)(const void *)columns);
        }
#pragma GCC unroll 12
        for (int r = 0; r < BLOCK; r++) {
            v_store(dst + r * ld, s[r][0]);
            if (broad)
                v_store(dst + r * ld + 16, s[r][1]);
        }
    }
}

static void product_of(float *dst, int64_t ld, int cols, const blocks *a, int64_t groups,
                       const char *panel, bool add) {
    if (cols > 16)
        product(true, dst, ld, a, groups, panel, add);
    else
        product(false, dst, ld, a, groups, panel, add);
}

/* Rows that are no whole blocks or lie anywhere, by copies of them. */
static void product_of_copies(float *dst, int64_t ld, int rows, int cols, const char *const *row,
                              int64_t groups, const char *panel, bool add) {
    char copy[INT8_MR][INT8_ROW * COPIED] __attribute__((aligned(64)));
    blocks a = {copy[0], copy[0] + GROUP * COPIED, sizeof copy[0], rows > BLOCK ? 2 : 1};
    for (int64_t g = 0; g < groups; g += COPIED, panel += INT8_PANEL * COPIED, add = true) {
        int64_t n = groups - g < COPIED ? groups - g : COPIED;
        for (int r = 0; r < BLOCK * a.count; r++) {
            const char *from = row[r < rows ? r : rows - 1];
            memcpy(copy[r], from + GROUP * g, (size_t)(GROUP * n));
            memcpy(copy[r] + GROUP * COPIED, from + GROUP * groups + 4 * g, (size_t)(4 * n));
        }
        product_of(dst, ld, cols, &a, n, panel, add);
    }
}

static bool equally_apart(const char *const *row, int rows) {
    uintptr_t stride = (uintptr_t)row[1] - (uintptr_t)row[0], off = 0;
    for (int r = 2; r < rows; r++)
        off |= (uintptr_t)row[r] - (uintptr_t)row[r - 1] - stride;
    return !off;
}

static void amx_int8_tile(float *dst, int64_t ld, int rows, int cols, const void *const *a,
                          int64_t groups, const void *panel, bool add) {
    float sums[INT8_MR * INT8_NR] __attribute__((aligned(64)));
    const char *row[INT8_MR];
    bool blocks_only = rows % BLOCK == 0, whole = blocks_only && cols % 16 == 0;
    for (int r = 0; r < rows; r++)
        row[r] = a[r];
    float *to = whole ? dst : sums;
    int64_t to_ld = whole ? ld : INT8_NR;
    if (!whole && add) {
        memset(sums, 0, sizeof sums);
        for (int r = 0; r < rows; r++)
            memcpy(sums + r * INT8_NR, dst + r * ld, sizeof *dst * (size_t)cols);
    }
    t_begin_int8();
    if (blocks_only && equally_apart(row, rows)) {
        int64_t stride = (int64_t)((uintptr_t)row[1] - (uintptr_t)row[0]);
        blocks b = {row[0], row[0] + GROUP * groups, stride, rows / BLOCK};
        product_of(to, to_ld, cols, &b, groups, panel, add);
    } else {
        product_of_copies(to, to_ld, rows, cols, row, groups, panel, add);
    }
    for (int r = 0; !whole && r < rows; r++)
        memcpy(dst + r * ld, sums + r * INT8_NR, sizeof *dst * (size_t)cols);
}

#endif
