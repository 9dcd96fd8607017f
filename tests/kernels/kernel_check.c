/* SPDX-License-Identifier: Apache-2.0 */
/* Single CPU kernels of each instruction set, against double precision and the scalar twin. */
#include "check.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "tensor/quants.h"

enum { PAD = 64 };

static const float UNTOUCHED = -12345.5f;

float *ringed(check *t, int64_t n) {
    float *x = host_alloc(t, sizeof *x * (size_t)(n + 2 * PAD));
    for (int64_t i = 0; i < n + 2 * PAD; i++)
        x[i] = UNTOUCHED;
    return x + PAD;
}

void expect_ring(check *t, const float *x, int64_t n) {
    for (int64_t i = -PAD; i < n + PAD; i++)
        if (i < 0 || i >= n)
            expect(t, x[i] == UNTOUCHED, "element %lld around %lld results was written",
                   (long long)i, (long long)n);
}

/* Every size of tile; rows of a share memory, as a convolution's zeros do. */
static void gemm_tile_case(check *t, int rows, int cols, int64_t k, bool add) {
    int nr = t->k->nr;
    int64_t ld = cols + 3, lda = k + 1;
    float *a = host_alloc(t, sizeof *a * (size_t)(rows * lda)),
          *panel = host_alloc(t, sizeof *panel * (size_t)(k * nr));
    float *got = ringed(t, rows * ld);
    const float *row[CPU_MR_MAX];
    fill_floats(t, a, rows * lda, rows % 2 ? NORMAL : MIXED);
    fill_floats(t, panel, k * nr, NORMAL);
    for (int r = 0; r < rows; r++) {
        row[r] = r == 2 ? a : a + r * lda;
        for (int64_t j = 0; add && j < cols; j++)
            got[r * ld + j] = (float)random_normal(t);
    }
    double *want = host_alloc(t, sizeof *want * (size_t)(rows * ld)),
           *tol = host_alloc(t, sizeof *tol * (size_t)(rows * ld));
    for (int r = 0; r < rows; r++)
        for (int64_t j = 0; j < ld; j++) {
            double sum = got[r * ld + j], magnitude = fabs(sum);
            for (int64_t i = 0; j < cols && i < k; i++) {
                if (!i && !add)
                    sum = magnitude = 0;
                sum += (double)row[r][i] * panel[i * nr + j];
                magnitude += fabs((double)row[r][i] * panel[i * nr + j]);
            }
            want[r * ld + j] = sum;
            tol[r * ld + j] = j < cols ? tol_dot(k, magnitude) : 0;
        }
    t->k->gemm_tile(got, ld, rows, cols, row, k, panel, add);
    expect_close(t, "tile", got, want, rows * ld, tol, 1);
    expect_ring(t, got, rows * ld);
}

CHECK(gemm_tile) {
    static const int64_t depth[] = {1, 2, 33, 512};
    for (size_t d = 0; d < COUNT(depth); d++)
        for (int rows = 1; rows <= t->k->mr; rows++)
            for (int cols = 1; cols <= t->k->nr; cols += cols < 4 ? 1 : 3)
                gemm_tile_case(t, rows, cols == t->k->nr - 1 ? t->k->nr : cols, depth[d],
                               (rows + cols) % 2);
    gemm_tile_case(t, t->k->mr, t->k->nr, 256, false);
    gemm_tile_case(t, t->k->mr, t->k->nr, 256, true);
}

CHECK(gemm_columns) {
    static const int64_t depth[] = {1, 7, 96};
    int nr = t->k->nr;
    for (size_t d = 0; d < COUNT(depth); d++)
        for (int rows = 1; rows <= t->k->mr; rows++) {
            int64_t k = depth[d], lda = rows + 5;
            float *a = host_alloc(t, sizeof *a * (size_t)(k * lda));
            float *panel = host_alloc(t, sizeof *panel * (size_t)(k * nr)),
                  *got = ringed(t, rows * nr);
            double want[CPU_MR_MAX * CPU_NR_MAX], tol[CPU_MR_MAX * CPU_NR_MAX];
            fill_floats(t, a, k * lda, NORMAL);
            fill_floats(t, panel, k * nr, NORMAL);
            fill_floats(t, got, rows * nr, NORMAL);
            for (int r = 0; r < rows; r++)
                for (int j = 0; j < nr; j++) {
                    double sum = got[r * nr + j], magnitude = fabs(sum);
                    for (int64_t i = 0; i < k; i++) {
                        sum += (double)a[i * lda + r] * panel[i * nr + j];
                        magnitude += fabs((double)a[i * lda + r] * panel[i * nr + j]);
                    }
                    want[r * nr + j] = sum;
                    tol[r * nr + j] = tol_dot(k, magnitude);
                }
            t->k->gemm_columns(got, nr, rows, a, lda, k, panel);
            expect_close(t, "tile", got, want, rows * nr, tol, 1);
            expect_ring(t, got, rows * nr);
        }
}

CHECK(transpose) {
    for (int64_t rows = 1; rows <= 35; rows += 2)
        for (int64_t cols = 1; cols <= 35; cols += rows % 3 + 1) {
            int64_t src_ld = cols + rows % 3, dst_ld = rows + cols % 2;
            float *src = host_alloc(t, sizeof *src * (size_t)(rows * src_ld)),
                  *got = ringed(t, cols * dst_ld);
            float *want = host_alloc(t, sizeof *want * (size_t)(cols * dst_ld));
            fill_floats(t, src, rows * src_ld, MIXED);
            for (int64_t i = 0; i < cols * dst_ld; i++)
                want[i] = i % dst_ld < rows ? src[i % dst_ld * src_ld + i / dst_ld] : UNTOUCHED;
            t->k->transpose(got, dst_ld, src, src_ld, rows, cols);
            expect_equal(t, "transposed", got, want, cols * dst_ld);
            expect_ring(t, got, cols * dst_ld);
        }
}

/* A whole softmax in tiles: weights * what later factors leave of them, over the sum, must be the
 * softmax. */
static void softmax_case(check *t, int64_t tiles, int64_t keys, double spread) {
    int nr = t->k->nr;
    int64_t n = tiles * keys;
    float *logit = host_alloc(t, sizeof *logit * (size_t)(n * nr)), *weight = ringed(t, n * nr);
    float *max = ringed(t, nr), *sum = ringed(t, nr), *factor = ringed(t, nr);
    double *left = host_alloc(t, sizeof *left * (size_t)(n * nr));
    for (int64_t i = 0; i < n * nr; i++)
        logit[i] = (float)(spread * random_normal(t));
    memcpy(weight, logit, sizeof *logit * (size_t)(n * nr));
    for (int j = 0; j < nr; j++) {
        max[j] = -INFINITY;
        sum[j] = 0;
    }
    for (int64_t tile = 0; tile < tiles; tile++) {
        t->k->softmax_tile(weight + tile * keys * nr, keys, max, sum, factor);
        for (int64_t i = 0; i < (tile + 1) * keys * nr; i++)
            left[i] = i < tile * keys * nr ? left[i] * factor[i % nr] : weight[i];
    }
    expect_ring(t, weight, n * nr);
    expect_ring(t, max, nr);
    expect_ring(t, sum, nr);
    expect_ring(t, factor, nr);
    for (int j = 0; j < nr; j++) {
        double top = -INFINITY, total = 0;
        for (int64_t i = 0; i < n; i++)
            top = fmax(top, logit[i * nr + j]);
        for (int64_t i = 0; i < n; i++)
            total += exp(logit[i * nr + j] - top);
        expect(t, max[j] == (float)top, "maximum of column %d is %g, expected %g", j,
               (double)max[j], top);
        for (int64_t i = 0; i < n; i++) {
            /* the difference of two logits is rounded once, relative to itself; exp and the sums a
             * few ulp */
            double x = logit[i * nr + j] - top, want = exp(x) / total,
                   got = left[i * nr + j] / sum[j];
            double tol = want * (fabs(x) + 8 + 2 * sqrt((double)n) + 3 * (double)tiles) * 0x1p-24 +
                         2 * FLT_MIN;
            expect(t, fabs(got - want) <= tol,
                   "weight %lld of column %d is %.9g, expected %.9g within %.3g", (long long)i, j,
                   got, want, tol);
        }
    }
}

CHECK(softmax_tile) {
    softmax_case(t, 1, 1, 1);
    softmax_case(t, 3, 1, 10);
    softmax_case(t, 4, 96, 3);
    softmax_case(t, 2, 17, 300);
    softmax_case(t, 2, 5, 0);
    softmax_case(t, 2, 5, 1e8);
}

CHECK(scale_columns) {
    int nr = t->k->nr;
    for (int64_t rows = 1; rows < 40; rows += 7) {
        float *x = ringed(t, rows * nr), *want = host_alloc(t, sizeof *want * (size_t)(rows * nr)),
              factor[CPU_NR_MAX];
        fill_floats(t, x, rows * nr, MIXED);
        fill_floats(t, factor, nr, NORMAL);
        for (int64_t i = 0; i < rows * nr; i++)
            want[i] = x[i] * factor[i % nr];
        float *aligned = host_alloc(t, sizeof factor);
        memcpy(aligned, factor, sizeof factor);
        t->k->scale_columns(x, rows, aligned);
        expect_equal(t, "scaled", x, want, rows * nr);
        expect_ring(t, x, rows * nr);
    }
}

/* All 65536 values, at an odd address, in rows of every length up to 40. */
static void unpack_16_case(check *t, dtype type, bool bf16) {
    char *src = (char *)host_alloc(t, 2 * 65536 + 1) + 1;
    float *got = ringed(t, 65536);
    for (int i = 0; i < 65536; i++)
        memcpy(src + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    wan_cpu_unpack(t->k, type, got, src, 65536);
    expect_ring(t, got, 65536);
    for (int i = 0; i < 65536; i++) {
        int e = bf16 ? i >> 7 & 255 : i >> 10 & 31, f = i & (bf16 ? 127 : 1023);
        double one = bf16 ? 128 : 1024;
        int low = bf16 ? -133 : -24; /* exponent of the last bit when subnormal */
        double want = e == (bf16 ? 255 : 31) ? (f ? NAN : INFINITY)
                      : e                    ? ldexp(one + f, low + e - 1)
                                             : ldexp(f, low);
        if (i & 0x8000)
            want = -want;
        expect(t,
               isnan(want) ? isnan(got[i])
                           : (double)got[i] == want && !signbit(got[i]) == !signbit(want),
               "%s %#x becomes %.9g, not %.9g", bf16 ? "bf16" : "f16", (unsigned)i, (double)got[i],
               want);
    }
    for (int64_t n = 0; n < 40; n++) {
        float *row = ringed(t, n);
        wan_cpu_unpack(t->k, type, row, src + 2 * 0x3c00, n);
        expect_equal(t, "row", row, got + 0x3c00, n);
        expect_ring(t, row, n);
    }
}

CHECK(unpack) {
    unpack_16_case(t, WAN_F16, false);
    unpack_16_case(t, WAN_BF16, true);
    static const int64_t length[] = {32, 64, 96, 512};
    for (size_t l = 0; l < COUNT(length); l++) {
        float *want, *got = ringed(t, length[l]);
        tensor w = new_weight(t, WAN_Q8_0, 1, &length[l], MIXED, &want);
        wan_cpu_unpack(t->k, WAN_Q8_0, got, w.data, length[l]);
        expect_equal(t, "q8_0", got, want, length[l]);
        expect_ring(t, got, length[l]);
    }
}

/* Blocks of any bytes at all, at every address modulo 4, against the scalar truth. */
static void unpack_case(check *t, dtype type, int64_t blocks, int shift) {
    const dtype_info *d = wan_dtype(type);
    int64_t n = blocks * d->block, stored = blocks * d->bytes;
    uint8_t *src = (uint8_t *)host_alloc(t, (size_t)stored + 4) + shift;
    float *want = host_alloc(t, sizeof *want * (size_t)n + 1), *got = ringed(t, n);
    for (int64_t i = 0; i < stored; i++)
        src[i] = (uint8_t)(blocks == 256 ? i : random_int(t, 256));
    wan_dequantise(type, want, src, n);
    wan_cpu_unpack(t->k, type, got, src, n);
    for (int64_t i = 0; i < n; i++) /* NaN has many bits */
        if (isnan(want[i]) && isnan(got[i]))
            got[i] = want[i];
    expect_equal(t, d->name, got, want, n);
    expect_ring(t, got, n);
}

CHECK(unpack_types) {
    static const int64_t blocks[] = {0, 1, 2, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 256};
    for (int type = 0; type < WAN_DTYPES; type++)
        for (size_t b = 0; wan_dtype((dtype)type)->weight && b < COUNT(blocks); b++)
            unpack_case(t, (dtype)type, blocks[b], (int)b % 4);
}

/* As a product of many rows sees them: one row of a feed-forward at a time. */
CHECK(unpack_speed) {
    enum { N = 14336, ROWS = 64 };
    float *row = host_alloc(t, sizeof *row * N);
    for (int type = 0; t->bench && type < WAN_DTYPES; type++) {
        const dtype_info *d = wan_dtype((dtype)type);
        if (!d->weight)
            continue;
        int64_t bytes = N / d->block * d->bytes;
        uint8_t *src = host_alloc(t, (size_t)(bytes * ROWS));
        for (int64_t i = 0; i < bytes * ROWS; i++)
            src[i] = (uint8_t)(i % 2 ? 0x30 : random_int(t, 256)); /* halves about 0.1 */
        char label[32];
        snprintf(label, sizeof label, "unpack %s", d->name);
        for (bench b = bench_begin(t, label, (double)N * ROWS, (double)(bytes * ROWS));
             bench_next(&b);)
            for (int r = 0; r < ROWS; r++)
                wan_cpu_unpack(t->k, (dtype)type, row, src + r * bytes, N);
    }
}

/* The formula in double; what f32 can do is limited by the argument of exp, rounded relative to
 * itself. */
static void activation_case(check *t, const float *x, int64_t n, bool gelu) {
    float *got = ringed(t, n);
    double *want = host_alloc(t, sizeof *want * (size_t)n),
           *tol = host_alloc(t, sizeof *tol * (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        double v = x[i], u = gelu ? 1.5957691216057308 * (v + 0.044715 * v * v * v) : v;
        double e = exp(-u);
        want[i] = v / (1 + e);
        double argument = isinf(e) ? 0 : (gelu ? 4 : 1) * fabs(u) * e / (1 + e);
        tol[i] = fabs(want[i]) * (argument + 5) * 0x1p-24 + 100 * FLT_MIN;
    }
    memcpy(got, x, sizeof *x * (size_t)n);
    (gelu ? t->k->gelu_tanh : t->k->silu)(got, n);
    expect_close(t, gelu ? "gelu" : "silu", got, want, n, tol, 1);
    expect_ring(t, got, n);
}

CHECK(activations) {
    enum { N = 20001 };
    float *x = host_alloc(t, sizeof *x * N);
    for (int gelu = 0; gelu < 2; gelu++) {
        for (int i = 0; i < N; i++) /* dense where the function bends */
            x[i] = (float)(i - N / 2) * 0.001f;
        activation_case(t, x, N, gelu);
        for (int i = 0; i < N; i++)
            x[i] = (float)(i - N / 2) * 0.01f;
        activation_case(t, x, N, gelu);
        fill_floats(t, x, N, MIXED);
        activation_case(t, x, N, gelu);
        static const float extreme[] = {0,     -0.0f,  FLT_MAX, -FLT_MAX, FLT_MIN,
                                        1e30f, -1e30f, 88.5f,   -88.5f,   INFINITY};
        activation_case(t, extreme, COUNT(extreme), gelu);
        for (int64_t n = 0; n < 34; n++)
            activation_case(t, x, n, gelu);
    }
    for (int i = 0; i < N; i++) /* stays what it is, so that every run does the same */
        x[i] = 20;
    for (bench b = bench_begin(t, "gelu 20001", 0, 8.0 * N); bench_next(&b);)
        t->k->gelu_tanh(x, N);
}

CHECK(sums) {
    for (int64_t n = 1; n < 4000; n = n < 40 ? n + 1 : n * 3 + 1) {
        float *x = host_alloc(t, sizeof *x * (size_t)n);
        fill_floats(t, x, n, n % 3 ? NORMAL : MIXED);
        double sum = 0, squares = 0, magnitude = 0;
        for (int64_t i = 0; i < n; i++) {
            float d = x[i] - 0.75f;
            sum += x[i];
            magnitude += fabs(x[i]);
            squares += (double)d * d;
        }
        double got = t->k->sum(x, n), got_squares = t->k->sum_squares(x, 0.75f, n);
        expect(t, fabs(got - sum) <= (double)n * 0x1p-52 * magnitude,
               "sum of %lld is %.17g, expected %.17g", (long long)n, got, sum);
        expect(t, fabs(got_squares - squares) <= (double)n * 0x1p-52 * squares,
               "squares of %lld sum to %.17g, expected %.17g", (long long)n, got_squares, squares);
    }
}

CHECK(normalise) {
    for (int64_t n = 1; n < 300; n = n < 40 ? n + 1 : n * 2 + 1)
        for (int with = 0; with < 4; with++) {
            float *x = host_alloc(t, sizeof *x * (size_t)n), *got = ringed(t, n);
            float *gain = host_alloc(t, sizeof *x * (size_t)n),
                  *shift = host_alloc(t, sizeof *x * (size_t)n);
            double *want = host_alloc(t, sizeof *want * (size_t)n),
                   *tol = host_alloc(t, sizeof *tol * (size_t)n);
            fill_floats(t, x, n, MIXED);
            fill_floats(t, gain, n, NORMAL);
            fill_floats(t, shift, n, NORMAL);
            for (int64_t i = 0; i < n; i++) {
                double g = with & 1 ? 1.0 + gain[i] : 1, s = with & 2 ? shift[i] : 0,
                       y = (x[i] - 0.5) * 1.25 * g;
                want[i] = y + s;
                tol[i] = 0x1p-24 * (4 * fabs(y) + 1.25 * (fabs(x[i]) + 0.5) * (1 + fabs(gain[i])) +
                                    fabs(s)) +
                         FLT_MIN;
            }
            t->k->normalise(got, x, 0.5f, 1.25f, 1, with & 1 ? gain : NULL, with & 2 ? shift : NULL,
                            n);
            expect_close(t, "normalised", got, want, n, tol, 1);
            expect_ring(t, got, n);
            t->k->normalise(x, x, 0.5f, 1.25f, 1, with & 1 ? gain : NULL, with & 2 ? shift : NULL,
                            n);
            expect_equal(t, "in place", x, got, n);
        }
}

CHECK(rotate) {
    for (int64_t n = 2; n <= 134; n += 2) {
        float *x = ringed(t, n), *turn = host_alloc(t, sizeof *turn * (size_t)n);
        double *want = host_alloc(t, sizeof *want * (size_t)n),
               *tol = host_alloc(t, sizeof *tol * (size_t)n);
        fill_floats(t, x, n, MIXED);
        for (int64_t i = 0; i < n; i += 2) {
            double angle = 10 * random_normal(t);
            turn[i] = (float)cos(angle);
            turn[i + 1] = (float)sin(angle);
            double a = x[i], b = x[i + 1], c = turn[i], s = turn[i + 1];
            want[i] = a * c - b * s;
            want[i + 1] = b * c + a * s;
            tol[i] = tol[i + 1] = 0x1p-23 * (fabs(a) + fabs(b)) + FLT_MIN;
        }
        t->k->rotate(x, turn, n);
        expect_close(t, "rotated", x, want, n, tol, 1);
        expect_ring(t, x, n);
    }
}
