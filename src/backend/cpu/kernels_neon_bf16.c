/* SPDX-License-Identifier: Apache-2.0 */
/* FEAT_BF16: BFMMLA adds the products of 2 x 4 by 4 x 2 bf16 numbers to 2 x 2 sums.
 * Unless FPCR.EBF asks for more (Linux leaves it clear) the four products of a sum are taken two by
 * two: the sum of two is rounded to odd, then its sum with the total is; subnormal operands and
 * results count as zero.  To odd is off by less than a unit in the last place either way, twice
 * what rounding to nearest may be off by, but happens twice per two products, not once per
 * product: the error of a long sum grows by about 1.4. */
#include <assert.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_transpose.h"
#include "backend/cpu/kernels_words_neon.h"

#include "backend/cpu/kernels_tile.h"

enum { BF16_MR = 12 };

static_assert(NR == 8, "four blocks of two columns");

WORD bfloat16x8_t words(uint32x4_t x) {
    return vreinterpretq_bf16_u32(x);
}

/* Two numbers of each of four columns. */
WORD uint32x4_t load_pairs(const uint16_t *p) {
    return vreinterpretq_u32_u8(vld1q_u8((const void *)p));
}

/* Four numbers of two rows, or two and zeros. */
WORD bfloat16x8_t load_rows(const uint16_t *a, const uint16_t *b, bool whole) {
    uint8x8_t low, high;
    if (whole) {
        low = vld1_u8((const void *)a);
        high = vld1_u8((const void *)b);
    } else {
        uint32_t x, y;
        memcpy(&x, a, sizeof x);
        memcpy(&y, b, sizeof y);
        low = vreinterpret_u8_u64(vdup_n_u64(x));
        high = vreinterpret_u8_u64(vdup_n_u64(y));
    }
    return vreinterpretq_bf16_u8(vcombine_u8(low, high));
}

/* Four steps of depth, or two: `pairs` of them.  The pairs of two steps, interleaved, are two
 * columns of four numbers. */
INLINE void step(int blocks, vec (*s)[4], const uint16_t *const *a, int64_t i,
                 const uint16_t *panel, bool whole) {
    const uint32x4_t zero = vdupq_n_u32(0);
    uint32x4_t p0 = load_pairs(panel), p1 = load_pairs(panel + 8),
               q0 = whole ? load_pairs(panel + 2 * NR) : zero,
               q1 = whole ? load_pairs(panel + 2 * NR + 8) : zero;
    bfloat16x8_t b0 = words(vzip1q_u32(p0, q0)), b1 = words(vzip2q_u32(p0, q0)),
                 b2 = words(vzip1q_u32(p1, q1)), b3 = words(vzip2q_u32(p1, q1));
    UNROLLED
    for (int r = 0; r < blocks; r++) {
        bfloat16x8_t x = load_rows(a[2 * r] + i, a[2 * r + 1] + i, whole);
        s[r][0] = vbfmmlaq_f32(s[r][0], x, b0);
        s[r][1] = vbfmmlaq_f32(s[r][1], x, b1);
        s[r][2] = vbfmmlaq_f32(s[r][2], x, b2);
        s[r][3] = vbfmmlaq_f32(s[r][3], x, b3);
    }
}

/* Blocks of two rows by two columns become rows. */
WORD vec row_of(vec left, vec right, bool second) {
    float64x2_t x = vreinterpretq_f64_f32(left), y = vreinterpretq_f64_f32(right);
    return vreinterpretq_f32_f64(second ? vzip2q_f64(x, y) : vzip1q_f64(x, y));
}

/* `rows` is a constant where this is used. An odd last row stands in its block twice. */
INLINE void tile(int rows, float *dst, int64_t ld, int cols, const uint16_t *const *a, int64_t k,
                 const uint16_t *panel, bool add) {
    const int blocks = (rows + 1) / 2;
    const uint16_t *row[BF16_MR];
    vec s[BF16_MR / 2][4], sums[BF16_MR][2];
    UNROLLED
    for (int r = 0; r < blocks; r++) {
        row[2 * r] = a[2 * r];
        row[2 * r + 1] = a[2 * r + 1 < rows ? 2 * r + 1 : 2 * r];
        s[r][0] = s[r][1] = s[r][2] = s[r][3] = v_zero();
    }
    int64_t i = 0;
    for (; i + 4 <= k; i += 4, panel += 4 * NR)
        step(blocks, s, row, i, panel, true);
    if (i < k)
        step(blocks, s, row, i, panel, false);
    UNROLLED
    for (int r = 0; r < rows; r++) {
        sums[r][0] = row_of(s[r / 2][0], s[r / 2][1], r % 2);
        sums[r][1] = row_of(s[r / 2][2], s[r / 2][3], r % 2);
    }
    store_tile(rows, dst, ld, cols, sums, add);
}

static void bf16_tile(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                      int64_t k, const uint16_t *panel, bool add) {
    BY_ROWS(BF16_MR, tile, dst, ld, cols, a, k, panel, add)
}

static void to_bf16(uint16_t *dst, const float *src, int64_t n) {
    for (; n >= LANES; n -= LANES, src += LANES, dst += LANES)
        vst1_u8((void *)dst, vreinterpret_u8_bf16(vcvt_bf16_f32(v_load(src))));
    if (n) {
        uint8_t rest[8];
        vst1_u8(rest, vreinterpret_u8_bf16(vcvt_bf16_f32(v_load_part(src, (int)n))));
        memcpy(dst, rest, sizeof *dst * (size_t)n);
    }
}

#include "backend/cpu/kernels_pairs.h"

void wan_cpu_kernels_neon_bf16(cpu_kernels *k) {
    k->fast_bf16 = true;
    k->bf16_mr = BF16_MR;
    k->bf16_tile = bf16_tile;
    k->to_bf16 = to_bf16;
    k->pack_bf16 = pack_bf16;
    k->pack_pairs = pack_pairs;
}
