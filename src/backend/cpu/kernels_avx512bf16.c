/* SPDX-License-Identifier: Apache-2.0 */
/* AVX512-BF16: 24 sums, two halves of a panel's row and a pair of a row fit the 32 registers. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_transpose.h"
#include "backend/cpu/kernels_words_avx512.h"

#include "backend/cpu/kernels_tile.h"

enum { BF16_MR = 12 };

WORD __m512bh load_pairs(const void *p) {
    return (__m512bh)_mm512_loadu_si512(p);
}

/* The same pair in every lane. */
WORD __m512bh set_pair(const uint16_t *p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32((int)pair);
}

/* A step of a pair is `halves` loads, `rows` broadcasts and rows * halves VDPBF16PS. */
INLINE void tile(int rows, int halves, float *dst, int64_t ld, int cols, const uint16_t *const *a,
                 int64_t k, const uint16_t *panel, bool add) {
    vec s[BF16_MR][2];
    UNROLLED
    for (int r = 0; r < rows; r++)
        s[r][0] = s[r][1] = v_zero();
    for (int64_t i = 0; i < k; i += 2, panel += 2 * NR) {
        __m512bh p0 = load_pairs(panel), p1 = halves == 2 ? load_pairs(panel + 2 * LANES) : p0;
        UNROLLED
        for (int r = 0; r < rows; r++) {
            __m512bh x = set_pair(a[r] + i);
            s[r][0] = _mm512_dpbf16_ps(s[r][0], x, p0);
            if (halves == 2)
                s[r][1] = _mm512_dpbf16_ps(s[r][1], x, p1);
        }
    }
    store_tile(rows, dst, ld, cols, s, add);
}

static void bf16_tile(float *dst, int64_t ld, int rows, int cols, const uint16_t *const *a,
                      int64_t k, const uint16_t *panel, bool add) {
    BY_ROWS_AND_HALVES(BF16_MR, tile, dst, ld, cols, a, k, panel, add)
}

static void to_bf16(uint16_t *dst, const float *src, int64_t n) {
    for (; n >= LANES; n -= LANES, src += LANES, dst += LANES)
        _mm256_storeu_si256((__m256i *)(void *)dst, (__m256i)_mm512_cvtneps_pbh(v_load(src)));
    if (n) {
        __m256i rest = (__m256i)_mm512_cvtneps_pbh(v_load_part(src, (int)n));
        _mm256_mask_storeu_epi16(dst, first_lanes((int)n), rest);
    }
}

#include "backend/cpu/kernels_pairs.h"

WORD vec v_scale2(vec a, vec n) {
    return _mm512_scalef_ps(a, n);
}

WORD vec v_pairs(vec low, vec high) {
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i each = (__m512i)_mm512_cvtne2ps_pbh(high, low); /* all of low, then all of high */
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, each));
}

WORD vec v_add_pairs(vec sum, vec pairs) {
    const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(pairs), ones);
}

#include "backend/cpu/kernels_softmax.h"

void wan_cpu_kernels_avx512bf16(cpu_kernels *k) {
    k->fast_bf16 = true;
    k->bf16_mr = BF16_MR;
    k->bf16_tile = bf16_tile;
    k->to_bf16 = to_bf16;
    k->pack_bf16 = pack_bf16;
    k->pack_pairs = pack_pairs;
    k->softmax_bf16 = softmax_bf16;
}
