/* SPDX-License-Identifier: Apache-2.0 */
/* CPU kernels of bf16 products, against double precision and the scalar twin. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "check.h"

static bool is_nan_bf16(uint16_t h) {
    return (h & 0x7fff) > 0x7f80;
}

/* The nearest, or zero for a subnormal number. */
static bool is_bf16_of(uint16_t got, float x) {
    uint16_t want = wan_brain_from_float(x);
    if (is_nan_bf16(want))
        return is_nan_bf16(got);
    return got == want || (fabsf(x) < FLT_MIN && got == (want & 0x8000));
}

CHECK(to_bf16) {
    enum { N = 4 * 65536 };
    float *x = host_alloc(t, sizeof *x * N);
    uint16_t *got = host_alloc(t, sizeof *got * N);
    /* Every bf16, half-way to the next, and next to half-way. */
    static const uint32_t low[] = {0, 0x8000, 0x7fff, 0x8001};
    for (uint32_t i = 0; i < N; i++)
        x[i] = wan_bits_float(i / 4 << 16 | low[i % 4]);
    t->k->to_bf16(got, x, N);
    for (int i = 0; i < N; i++)
        expect(t, is_bf16_of(got[i], x[i]), "%.9g becomes %#x", (double)x[i], got[i]);
    for (int64_t n = 0; n < 70; n++) {
        float *ring = ringed(t, n);
        uint16_t *to = (uint16_t *)ring + n; /* ends where the floats end */
        fill_floats(t, x, n, MIXED);
        t->k->to_bf16(to, x, n);
        for (int64_t i = 0; i < n; i++)
            expect(t, is_bf16_of(to[i], x[i]), "%lld of %lld is %#x", (long long)i, (long long)n,
                   to[i]);
        expect_ring(t, ring, n);
    }
}

CHECK(pack_bf16) {
    int nr = t->k->nr;
    for (int64_t rows = 0; rows <= nr; rows += rows < 9 ? 1 : 3)
        for (int64_t cols = 1; cols < 300; cols = cols < 20 ? cols + 1 : 2 * cols - 5) {
            int64_t ld = cols + rows % 3, depth = (cols + 1) / 2 * 2;
            float *src = host_alloc(t, sizeof *src * (size_t)(rows * ld + 1)),
                  *ring = ringed(t, depth * nr / 2);
            uint16_t *got = (uint16_t *)ring;
            fill_floats(t, src, rows * ld, MIXED);
            t->k->pack_bf16(got, src, ld, rows, cols);
            for (int64_t i = 0; i < depth; i++)
                for (int64_t j = 0; j < nr; j++) {
                    float want = i < cols && j < rows ? src[j * ld + i] : 0;
                    uint16_t is = got[(i / 2 * nr + j) * 2 + i % 2];
                    expect(t, is_bf16_of(is, want), "(%lld, %lld) of [%lld, %lld] is %#x, not %.9g",
                           (long long)i, (long long)j, (long long)cols, (long long)rows, is,
                           (double)want);
                }
            expect_ring(t, ring, depth * nr / 2);
        }
}

static uint16_t *random_bf16(check *t, int64_t n, fill how) {
    float *x = host_alloc(t, sizeof *x * (size_t)n);
    uint16_t *b = host_alloc(t, sizeof *b * (size_t)n);
    fill_floats(t, x, n, how);
    for (int64_t i = 0; i < n; i++)
        b[i] = wan_brain_from_float(x[i]);
    return b;
}

/* The exact sum of row a and column j of the panel. */
static double sum_bf16(const uint16_t *a, const uint16_t *panel, int nr, int j, int64_t k,
                       double *magnitude) {
    double sum = 0;
    for (int64_t i = 0; i < k; i++) {
        double p = (double)wan_brain_to_float(a[i]) *
                   (double)wan_brain_to_float(panel[(i / 2 * nr + j) * 2 + i % 2]);
        sum += p;
        *magnitude += fabs(p);
    }
    return sum;
}

/* Rows share memory and lie at odd distances, as a convolution's pixels may. */
static void bf16_tile_case(check *t, int rows, int cols, int64_t k, bool add, fill how) {
    int nr = t->k->nr;
    int64_t ld = cols + 3, lda = k + 1;
    uint16_t *a = random_bf16(t, rows * lda, how), *panel = random_bf16(t, k * nr, NORMAL);
    float *got = ringed(t, rows * ld);
    const uint16_t *row[CPU_MR_MAX];
    double *want = host_alloc(t, sizeof *want * (size_t)(rows * ld)),
           *tol = host_alloc(t, sizeof *tol * (size_t)(rows * ld));
    for (int r = 0; r < rows; r++) {
        row[r] = r == 2 ? a : a + r * lda;
        for (int64_t j = 0; add && j < cols; j++)
            got[r * ld + j] = (float)random_normal(t);
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < ld; j++) {
            double old = got[r * ld + j], magnitude = add ? fabs(old) : 0;
            want[r * ld + j] = old;
            tol[r * ld + j] = 0;
            if (j >= cols)
                continue;
            want[r * ld + j] = (add ? old : 0) + sum_bf16(row[r], panel, nr, j, k, &magnitude);
            /* Subnormal operands and sums may vanish. */
            tol[r * ld + j] = tol_dot(k, magnitude) + 8 * (double)k * FLT_MIN;
        }
    t->k->bf16_tile(got, ld, rows, cols, row, k, panel, add);
    expect_close(t, "tile", got, want, rows * ld, tol, 1);
    expect_ring(t, got, rows * ld);
}

CHECK(bf16_tile) {
    static const int64_t depth[] = {2, 4, 34, 512};
    int mr = t->k->bf16_mr, nr = t->k->nr;
    expect(t, mr <= CPU_MR_MAX && nr <= CPU_NR_MAX, "a tile of %d x %d", mr, nr);
    for (size_t d = 0; d < COUNT(depth); d++)
        for (int rows = 1; rows <= mr; rows++)
            for (int cols = 1; cols <= nr; cols += cols < 4 ? 1 : 3)
                bf16_tile_case(t, rows, cols == nr - 1 ? nr : cols, depth[d], (rows + cols) % 2,
                               rows % 2 ? NORMAL : MIXED);
    for (fill how = NORMAL; how < FILLS; how++)
        for (int add = 0; add < 2; add++)
            bf16_tile_case(t, mr, nr, 256, add, how);
    /* What is not a number stays so, and only in its row. */
    uint16_t *a = random_bf16(t, 2 * 64, NORMAL), *panel = random_bf16(t, 64 * nr, NORMAL);
    float *got = ringed(t, 2 * nr);
    for (int bad = 0; bad < 2; bad++) {
        a[13] = bad ? 0x7f80 : 0x7fc0;
        t->k->bf16_tile(got, nr, 2, nr, (const uint16_t *const[]){a, a + 64}, 64, panel, false);
        for (int j = 0; j < nr; j++) {
            expect(t, !isfinite(got[j]), "column %d is %g", j, (double)got[j]);
            expect(t, isfinite(got[nr + j]), "column %d of the next row is %g", j,
                   (double)got[nr + j]);
        }
    }
}

/* A tile whose operands stay in the caches, at the depth of a product. */
CHECK(bf16_tile_speed) {
    enum { K = 512, TILES = 64 };
    int mr = t->k->bf16_mr, nr = t->k->nr;
    if (!t->bench)
        return;
    uint16_t *a = random_bf16(t, (int64_t)mr * K, NORMAL), *panel = random_bf16(t, K * nr, NORMAL);
    float *dst = host_alloc(t, sizeof *dst * (size_t)(mr * nr));
    const uint16_t *row[CPU_MR_MAX];
    for (int r = 0; r < mr; r++)
        row[r] = a + r * K;
    char label[64];
    snprintf(label, sizeof label, "bf16 tile %d x %d, depth %d", mr, nr, K);
    for (bench b = bench_begin(t, label, 2.0 * mr * nr * K * TILES, 0); bench_next(&b);)
        for (int i = 0; i < TILES; i++)
            t->k->bf16_tile(dst, nr, mr, nr, row, K, panel, false);
}
