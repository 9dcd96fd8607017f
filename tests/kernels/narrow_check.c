/* SPDX-License-Identifier: Apache-2.0 */
/* CPU kernels of bf16 and int8 products, against double precision and the scalar twin. */
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

static void check_pairs(check *t, int64_t rows, int64_t cols, int64_t ld) {
    int nr = t->k->nr;
    uint16_t *src = host_alloc(t, sizeof *src * (size_t)(rows * ld + 1));
    float *ring = ringed(t, cols * nr / 2);
    const uint16_t *got = (const void *)ring;
    for (int64_t i = 0; i < rows * ld; i++)
        src[i] = (uint16_t)random_int(t, 65536);
    t->k->pack_pairs((uint16_t *)ring, src, ld, rows, cols);
    for (int64_t i = 0; i < cols * nr; i++) {
        int64_t j = i / 2 % nr, at = i / 2 / nr * 2 + i % 2;
        uint16_t want = j < rows ? src[j * ld + at] : 0;
        expect(t, got[i] == want, "(%lld, %lld) of [%lld, %lld] is %#x, not %#x", (long long)at,
               (long long)j, (long long)cols, (long long)rows, got[i], want);
    }
    expect_ring(t, ring, cols * nr / 2);
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
            check_pairs(t, rows, depth, ld + 1);
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

/* Several parts at once have the bits of one after the other. */
static void bf16_parts_case(check *t, int rows, int cols, int parts, int64_t k) {
    int nr = t->k->nr;
    int64_t ld = cols + 1, step = rows + 2;
    uint16_t *a = random_bf16(t, step * k, NORMAL), *panel = random_bf16(t, parts * k * nr, NORMAL);
    float *got = ringed(t, rows * ld), *want = ringed(t, rows * ld);
    const uint16_t *row[4 * (CPU_MR_MAX + 2)] = {0};
    for (int64_t i = 0; i < parts * step; i++)
        row[i] = a + (i * 7 % step) * k;
    for (int64_t i = 0; i < rows * ld; i++)
        got[i] = want[i] = (float)random_normal(t);
    t->k->bf16_parts(got, ld, rows, cols, row, step, parts, k, panel, 2 * k);
    for (int p = 0; p < parts; p++)
        t->k->bf16_tile(want, ld, rows, cols, row + p * step, k, panel + p * k * nr, true);
    for (int64_t i = 0; i < rows * ld; i++)
        expect(t, got[i] == want[i], "%d x %d, %d parts of %d: number %d is %g, expected %g", rows,
               cols, parts, (int)k, (int)i, (double)got[i], (double)want[i]);
    expect_ring(t, got, rows * ld);
}

CHECK(bf16_parts) {
    int mr = t->k->bf16_mr, nr = t->k->nr;
    if (!t->k->bf16_parts)
        return;
    for (int rows = 1; rows <= mr; rows++)
        for (int parts = 1; parts <= 3; parts++) {
            bf16_parts_case(t, rows, nr, parts, 64);
            bf16_parts_case(t, rows, rows % (nr - 1) + 1, parts, 38);
        }
    bf16_parts_case(t, mr, nr, 3, 256);
}

/* The same check beside the peak of another precision. */
static check beside(const check *t, precision p) {
    check other = *t;
    other.peak = t->c->be->peak(t->c->device, p).flops;
    return other;
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
    check timed = beside(t, WAN_PRECISION_BF16);
    for (bench b = bench_begin(&timed, label, 2.0 * mr * nr * K * TILES, 0); bench_next(&b);)
        for (int i = 0; i < TILES; i++)
            t->k->bf16_tile(dst, nr, mr, nr, row, K, panel, false);
}

/* ---------------------------------------------------------------------------------------- int8 */

enum { GROUP = 32 };

/* What kernels.h says of one group, in double. */
static float quantised(const float *x, int64_t n, int *code) {
    float top = 0;
    bool bad = false;
    for (int64_t i = 0; i < n; i++) {
        bad |= !isfinite(x[i]);
        top = fmaxf(top, fabsf(x[i]));
    }
    for (int i = 0; i < GROUP; i++)
        code[i] = 0;
    if (bad || top < 0x1p-100f)
        return bad ? NAN : 0;
    for (int64_t i = 0; i < n; i++)
        code[i] = (int)nearbyint((double)(x[i] * (127 / top)));
    return top / 127;
}

/* Rows of one side of a product, as the kernels make them; codes and scales beside them. */
typedef struct side {
    char *rows; /* [count, groups] */
    size_t stride;
    int *code;    /* [count, groups, GROUP] */
    float *scale; /* [count, groups] */
    int64_t groups;
} side;

static side new_side(check *t, int64_t count, int64_t n) {
    side s = {.groups = (n + GROUP - 1) / GROUP};
    s.stride = t->k->int8_row * (size_t)s.groups + 4;
    s.rows = host_alloc(t, s.stride * (size_t)count);
    s.code = host_alloc(t, sizeof *s.code * (size_t)(count * s.groups * GROUP));
    s.scale = host_alloc(t, sizeof *s.scale * (size_t)(count * s.groups));
    return s;
}

static side side_of_floats(check *t, int64_t count, int64_t n, const float *x) {
    side s = new_side(t, count, n);
    for (int64_t r = 0; r < count; r++) {
        t->k->to_int8(s.rows + (size_t)r * s.stride, x + r * n, n);
        for (int64_t g = 0; g < s.groups; g++) {
            int64_t at = r * s.groups + g, rest = n - g * GROUP;
            s.scale[at] =
                quantised(x + r * n + g * GROUP, rest < GROUP ? rest : GROUP, s.code + at * GROUP);
        }
    }
    return s;
}

/* The worst codes, -128 and 127, among any others. */
static side side_of_codes(check *t, int64_t count, int64_t n, bool blocks) {
    side s = new_side(t, count, n);
    int8_t *q = host_alloc(t, (size_t)(s.groups * (GROUP + 2)));
    for (int64_t r = 0; r < count; r++) {
        int worst = (int)random_int(t, 3); /* all the lowest, all the highest, any */
        char *to = s.rows + (size_t)r * s.stride;
        for (int64_t i = 0; i < s.groups * GROUP; i++)
            s.code[r * s.groups * GROUP + i] = i >= n  ? 0
                                               : worst ? 255 * (worst - 1) - 128
                                                       : (int)random_int(t, 256) - 128;
        for (int64_t g = 0; g < s.groups; g++) {
            uint16_t half = (uint16_t)(0x3000 + (blocks ? random_int(t, 1024) : 0));
            int64_t at = r * s.groups + g;
            int8_t *block = q + g * (blocks ? GROUP + 2 : GROUP);
            s.scale[at] = wan_half_to_float(half);
            if (blocks)
                memcpy(block, &half, 2);
            for (int i = 0; i < GROUP; i++)
                block[i + (blocks ? 2 : 0)] = (int8_t)s.code[at * GROUP + i];
        }
        if (blocks)
            t->k->int8_from_q8_0(to, q, s.groups);
        else
            t->k->int8_from_codes(to, q, s.scale[r * s.groups], n);
    }
    return s;
}

/* A group times a group is exact but for the scales' product; so is what a tile makes of one. */
static double group_sum(const side *a, int64_t r, const side *b, int64_t j, int64_t g) {
    int64_t x = r * a->groups + g, y = j * b->groups + g, whole = 0;
    for (int i = 0; i < GROUP; i++)
        whole += a->code[x * GROUP + i] * b->code[y * GROUP + i];
    return (double)whole * a->scale[x] * b->scale[y];
}

static void *panel_of(check *t, const side *b, int64_t cols) {
    size_t bytes = t->k->int8_panel * (size_t)b->groups;
    float *ring = ringed(t, (int64_t)(bytes / sizeof *ring));
    t->k->pack_int8(ring, b->rows, b->stride, cols, b->groups);
    expect_ring(t, ring, (int64_t)(bytes / sizeof *ring));
    return ring;
}

static void int8_tile_case(check *t, const side *a, int rows, const side *b, int cols, bool add) {
    int64_t ld = cols + 3;
    float *got = ringed(t, rows * ld);
    const void *row[CPU_MR_MAX], *panel = panel_of(t, b, cols);
    double *want = host_alloc(t, sizeof *want * (size_t)(rows * ld)),
           *tol = host_alloc(t, sizeof *tol * (size_t)(rows * ld));
    for (int r = 0; r < rows; r++) {
        row[r] = a->rows + (size_t)r * a->stride;
        for (int j = 0; j < ld; j++) {
            double old = j < cols && add ? (got[r * ld + j] = (float)random_normal(t)) : 0;
            double sum = 0, magnitude = fabs(old);
            for (int64_t g = 0; j < cols && g < a->groups; g++) {
                double part = group_sum(a, r, b, j, g);
                sum += part;
                magnitude += fabs(part);
            }
            want[r * ld + j] = j < cols ? old + sum : got[r * ld + j];
            tol[r * ld + j] = j < cols ? tol_dot(a->groups, magnitude) + FLT_MIN : 0;
        }
    }
    t->k->int8_tile(got, ld, rows, cols, row, a->groups, panel, add);
    expect_close(t, "tile", got, want, rows * ld, tol, 1);
    expect_ring(t, got, rows * ld);
}

CHECK(int8_tile) {
    static const int64_t depth[] = {1, 32, 45, 96, 544};
    int mr = t->k->int8_mr, nr = t->k->nr;
    expect(t, mr <= CPU_MR_MAX, "a tile of %d rows", mr);
    for (size_t d = 0; d < COUNT(depth); d++) {
        int64_t k = depth[d];
        float *x = host_alloc(t, sizeof *x * (size_t)(CPU_MR_MAX * k)),
              *w = host_alloc(t, sizeof *w * (size_t)(CPU_NR_MAX * k));
        fill_floats(t, x, mr * k, d % 2 ? NORMAL : MIXED);
        fill_floats(t, w, nr * k, NORMAL);
        side a = side_of_floats(t, mr, k, x), b = side_of_floats(t, nr, k, w),
             codes = side_of_codes(t, nr, k, false), more = side_of_codes(t, mr, k, false);
        for (int rows = 1; rows <= mr; rows++)
            for (int cols = 1; cols <= nr; cols += cols < 4 ? 1 : 3)
                int8_tile_case(t, &a, rows, &b, cols == nr - 1 ? nr : cols, (rows + cols) % 2);
        int8_tile_case(t, &a, mr, &codes, nr, false);
        int8_tile_case(t, &more, mr, &codes, nr, true);
        if (k % GROUP)
            continue;
        side blocks = side_of_codes(t, nr, k, true), rows = side_of_codes(t, mr, k, true);
        int8_tile_case(t, &a, mr, &blocks, nr, true);
        int8_tile_case(t, &rows, mr, &b, nr, false);
    }
}

/* Codes and scales of rows, seen through products with a unit: a column that is 1 in one place. */
CHECK(int8_rows) {
    int nr = t->k->nr;
    float x[GROUP];
    for (int round = 0; round < 200; round++) {
        double size = ldexp(1, (int)random_int(t, 250) - 125);
        for (int i = 0; i < GROUP; i++)
            x[i] = (float)(size * random_normal(t));
        if (round % 8 == 1) /* half-way between codes */
            for (int i = 0; i < GROUP; i++)
                x[i] = (float)ldexp(i ? (double)(2 * i + 1) : 254, round % 100 - 50);
        if (round % 16 == 3)
            x[round % GROUP] = round % 32 == 3 ? INFINITY : NAN;
        side a = side_of_floats(t, 1, GROUP, x);
        for (int at = 0; at < GROUP; at += nr) {
            float *units = host_alloc(t, sizeof *units * (size_t)(nr * GROUP)),
                  *got = ringed(t, nr);
            memset(units, 0, sizeof *units * (size_t)(nr * GROUP));
            for (int j = 0; j < nr && at + j < GROUP; j++)
                units[j * GROUP + at + j] = 1;
            side b = side_of_floats(t, nr, GROUP, units);
            t->k->int8_tile(got, nr, 1, nr, (const void *const[]){a.rows}, 1, panel_of(t, &b, nr),
                            false);
            for (int j = 0; j < nr; j++) {
                float want = (float)group_sum(&a, 0, &b, j, 0);
                expect(t,
                       isnan(want) ? isnan(got[j]) : fabsf(got[j] - want) <= fabsf(want) * 0x1p-22f,
                       "%.9g of %.9g becomes %.9g, expected %.9g", (double)x[(at + j) % GROUP],
                       size, (double)got[j], (double)want);
            }
        }
    }
}

CHECK(int8_tile_speed) {
    enum { K = 512, TILES = 64 };
    int mr = t->k->int8_mr, nr = t->k->nr;
    if (!t->bench)
        return;
    side a = side_of_codes(t, mr, K, true), b = side_of_codes(t, nr, K, true);
    float *dst = host_alloc(t, sizeof *dst * (size_t)(mr * nr));
    const void *row[CPU_MR_MAX], *panel = panel_of(t, &b, nr);
    for (int r = 0; r < mr; r++)
        row[r] = a.rows + (size_t)r * a.stride;
    char label[64];
    snprintf(label, sizeof label, "int8 tile %d x %d, depth %d", mr, nr, K);
    check timed = beside(t, WAN_PRECISION_INT8);
    for (bench timer = bench_begin(&timed, label, 2.0 * mr * nr * K * TILES, 0);
         bench_next(&timer);)
        for (int i = 0; i < TILES; i++)
            t->k->int8_tile(dst, nr, mr, nr, row, a.groups, panel, false);
}
