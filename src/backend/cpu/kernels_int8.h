/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_int8.h - products of 8-bit codes in groups of 32, in the words of kernels_vector.h and
 * these:
 *   vint           LANES 32-bit integers
 *   WORDS          32-bit words that hold the 32 codes of a group: 16 of two, or 8 of four
 *   OFFSET         what is added to the codes of a row, for machines that multiply unsigned by
 *                  signed bytes: 0 or 128
 *   INT8_MR        rows of a tile: 4 INT8_MR sums and 3 more fit the registers
 *   i_zero i_load i_store i_set (the same word everywhere)   i_float (to vec)
 *   i_dot          sum + the products of the codes in a word of the panel and one of the row
 *   i_start        -OFFSET * x
 *   put_codes      32 signed codes to the words of a row
 *   quantise       32 floats to codes; returns their scale
 *   half_float     f16 to f32
 * A group of a row is its scale and its words; a group of a panel [WORDS, NR] words, then what its
 * sums start with if there is an OFFSET, then NR scales. */
#ifndef WAN_BACKEND_CPU_KERNELS_INT8_H
#define WAN_BACKEND_CPU_KERNELS_INT8_H

#include <string.h>

/* A step is taken word by word unless the words' file knows better: too many at once and sums no
 * longer stay in registers. */
#ifndef UNROLL_WORDS
#define UNROLL_WORDS ROLLED
#endif

enum {
    GROUP = 32,
    GROUP_ROW = 4 + 4 * WORDS,
    GROUP_START = 4 * NR * WORDS,
    GROUP_SCALES = GROUP_START + (OFFSET ? 4 * NR : 0),
    GROUP_PANEL = GROUP_SCALES + 4 * NR
};

INLINE void put_group(char *to, const int8_t *code, float scale) {
    memcpy(to, &scale, sizeof scale);
    put_codes(to + 4, code);
}

static void to_int8(void *row, const float *src, int64_t n) {
    int8_t code[GROUP];
    char *to = row;
    for (; n >= GROUP; n -= GROUP, src += GROUP, to += GROUP_ROW) {
        float scale = quantise(code, src);
        put_group(to, code, scale);
    }
    if (n) {
        float rest[GROUP] = {0};
        memcpy(rest, src, sizeof *src * (size_t)n);
        float scale = quantise(code, rest);
        put_group(to, code, scale);
    }
}

static void int8_from_q8_0(void *row, const void *src, int64_t groups) {
    const char *block = src;
    for (char *to = row; groups > 0; groups--, to += GROUP_ROW, block += 2 + GROUP) {
        uint16_t scale;
        memcpy(&scale, block, sizeof scale);
        put_group(to, (const int8_t *)block + 2, half_float(scale));
    }
}

static void int8_from_codes(void *row, const int8_t *src, float scale, int64_t n) {
    char *to = row;
    for (; n >= GROUP; n -= GROUP, src += GROUP, to += GROUP_ROW)
        put_group(to, src, scale);
    if (n) {
        int8_t rest[GROUP] = {0};
        memcpy(rest, src, (size_t)n);
        put_group(to, rest, scale);
    }
}

/* Takes the offset from the codes of a panel's group, and sees to it that its sums start with what
 * the rows' offset will add to them. */
INLINE void start_group(char *p) {
    vint s0 = i_zero(), s1 = i_zero();
    for (int w = 0; w < WORDS; w++, p += 4 * NR) {
        for (int i = 0; i < 4 * NR; i++)
            p[i] = (char)(p[i] ^ OFFSET);
        s0 = i_dot(s0, i_load(p), i_set(0x01010101));
        s1 = i_dot(s1, i_load(p + 4 * LANES), i_set(0x01010101));
    }
    i_store(p, i_start(s0));
    i_store(p + 4 * LANES, i_start(s1));
}

static void pack_int8(void *panel, const void *src, size_t stride, int64_t rows, int64_t groups) {
    char *p = panel;
    const char *from = src;
    for (int64_t g = 0; g < groups; g++, p += GROUP_PANEL, from += GROUP_ROW) {
        if (rows < NR) {
            memset(p, OFFSET, GROUP_START);
            memset(p + GROUP_SCALES, 0, 4 * NR);
        }
        transpose_words(p, 4 * NR, from + 4, (int64_t)stride, rows, WORDS);
        for (int64_t r = 0; r < rows; r++)
            memcpy(p + GROUP_SCALES + 4 * r, from + (size_t)r * stride, 4);
        if (OFFSET)
            start_group(p);
    }
}

INLINE vint row_word(const char *row, int64_t at) {
    uint32_t word;
    memcpy(&word, row + at, sizeof word);
    return i_set(word);
}

INLINE vec panel_floats(const char *p) {
    return v_load((const float *)(const void *)p);
}

/* A word of the panel meets `rows` words of rows: `halves` loads, `rows` broadcasts and rows *
 * halves dot products of LANES sums. */
INLINE void tile_int8(int rows, int halves, float *dst, int64_t ld, int cols, const char *const *a,
                      int64_t groups, const char *p, bool add) {
    vec s[INT8_MR][2];
    UNROLLED
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = v_zero();
    for (int64_t at = 0; at < groups * GROUP_ROW; at += GROUP_ROW, p += GROUP_PANEL) {
        vint d[INT8_MR][2];
        UNROLLED
        for (int r = 0; r < rows; r++) {
            d[r][0] = OFFSET ? i_load(p + GROUP_START) : i_zero();
            d[r][1] = OFFSET ? i_load(p + GROUP_START + 4 * LANES) : i_zero();
        }
        UNROLL_WORDS
        for (int w = 0; w < WORDS; w++) {
            vint p0 = i_load(p + 4 * NR * w), p1 = i_load(p + 4 * NR * w + 4 * LANES);
            UNROLLED
            for (int r = 0; r < rows; r++) {
                vint x = row_word(a[r], at + 4 + 4 * w);
                d[r][0] = i_dot(d[r][0], p0, x);
                if (halves == 2)
                    d[r][1] = i_dot(d[r][1], p1, x);
            }
        }
        vec w0 = panel_floats(p + GROUP_SCALES), w1 = panel_floats(p + GROUP_SCALES + 4 * LANES);
        UNROLLED
        for (int r = 0; r < rows; r++) {
            float scale;
            memcpy(&scale, a[r] + at, sizeof scale);
            s[r][0] = v_fma(i_float(d[r][0]), v_mul(v_set(scale), w0), s[r][0]);
            if (halves == 2)
                s[r][1] = v_fma(i_float(d[r][1]), v_mul(v_set(scale), w1), s[r][1]);
        }
    }
    store_tile(rows, dst, ld, cols, s, add);
}

static void int8_tile(float *dst, int64_t ld, int rows, int cols, const void *const *a,
                      int64_t groups, const void *panel, bool add) {
    const char *row[INT8_MR];
    for (int r = 0; r < rows; r++)
        row[r] = a[r];
    BY_ROWS_AND_HALVES(INT8_MR, tile_int8, dst, ld, cols, row, groups, panel, add)
}

INLINE void fill_int8(cpu_kernels *k) {
    k->int8_mr = INT8_MR;
    k->int8_row = GROUP_ROW;
    k->int8_panel = GROUP_PANEL;
    k->to_int8 = to_int8;
    k->int8_from_q8_0 = int8_from_q8_0;
    k->int8_from_codes = int8_from_codes;
    k->pack_int8 = pack_int8;
    k->int8_tile = int8_tile;
}

#endif
