/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "check.h"

#include <stdio.h>
#include <string.h>

#include "backend/cpu/cpu.h"

static const dtype types[] = {WAN_F32, WAN_F16, WAN_BF16, WAN_Q8_0};

static void reference(check *t, const float *x, const float *w, dtype stored, const float *bias,
                      int64_t m, int64_t n, int64_t k, activation act, double *want, double *tol) {
    rounding rx = rounding_of(t, x, m * k), rw = rounding_of(t, w, n * k);
    if (t->k) {
        x = kept_operand(t, x, m, k, WAN_F32, &rx);
        w = kept_operand(t, w, n, k, stored, &rw);
    }
    for (int64_t i = 0; i < m * n; i++)
        want[i] = reference_dot(x + i / n * k, rx, w + i % n * k, rw, bias ? bias[i % n] : 0, k,
                                act, &tol[i]);
}

static void linear_case(check *t, dtype type, int64_t m, int64_t k, int64_t n, activation act,
                        bool with_bias, fill how) {
    size_t mark = wan_mark(t->c);
    float *hx, *hw, *hb;
    tensor x = new_rows(t, WAN_DIMS(m, k), how, &hx), b = new_f32(t, WAN_DIMS(n), NORMAL, &hb);
    linear l = {.weight =
                    new_weight(t, type, WAN_DIMS(n, k), how == HUGE_NUMBERS ? MIXED : NORMAL, &hw)};
    if (with_bias)
        l.bias = b;
    double *want = host_alloc(t, sizeof *want * (size_t)(m * n)),
           *tol = host_alloc(t, sizeof *tol * (size_t)(m * n));
    reference(t, hx, hw, type, with_bias ? hb : NULL, m, n, k, act, want, tol);
    /* Where the result is of 16 bits so is the bias; no activation is steeper than 1.2. */
    for (int64_t i = 0; with_bias && m % 2 && t->c->act != WAN_F32 && i < m * n; i++)
        tol[i] += 1.2 * 0x1p-9 * fabs(hb[i % n]);
    guard_begin(t, sizeof(float) * (size_t)(m * n));
    tensor y = wan_new(t->c, m % 2 ? t->c->act : WAN_F32, WAN_DIMS(m, n));
    guard_begin(t, 0); /* so that work space lies behind the guard */
    wan_linear_into(t->c, y, x, &l, act);
    guard_end(t, y);
    char what[80];
    snprintf(what, sizeof what, "%s [%lld, %lld] -> %lld, activation %d", wan_dtype(type)->name,
             (long long)m, (long long)k, (long long)n, act);
    expect_near(t, what, y, want, tol);
    wan_release(t->c, mark);
}

CHECK(linear) {
    /* Rows about every tile and panel, outputs about tiles and blocks, depths about whole and odd
     * blocks. */
    static const int64_t shape[][3] = {{1, 32, 1},    {1, 96, 7},     {2, 512, 33},  {5, 544, 130},
                                       {6, 64, 16},   {7, 32, 17},    {13, 96, 128}, {14, 1056, 50},
                                       {16, 32, 48},  {17, 64, 96},   {48, 512, 31}, {49, 32, 129},
                                       {97, 96, 129}, {130, 544, 40}, {257, 128, 64}};
    for (size_t i = 0; i < COUNT(shape); i++)
        for (size_t type = 0; type < COUNT(types); type++)
            linear_case(t, types[type], shape[i][0], shape[i][1], shape[i][2],
                        (activation)((i + type) % 3), i % 4 > 0, i % 5 == 1 ? MIXED : NORMAL);
    static const int64_t odd[][3] = {{1, 1, 1},   {3, 7, 5},     {20, 10, 36},
                                     {50, 20, 3}, {97, 513, 19}, {60, 36, 144}};
    for (size_t i = 0; i < COUNT(odd); i++) /* depths that Q8_0 cannot have */
        for (size_t type = 0; type < COUNT(types) - 1; type++)
            linear_case(t, types[type], odd[i][0], odd[i][1], odd[i][2],
                        (activation)((i + type) % 3), i % 2, NORMAL);
    for (fill how = ZERO; how < FILLS; how++) {
        linear_case(t, WAN_F32, 9, 64, 24, WAN_NONE, false, how);
        linear_case(t, WAN_Q8_0, 70, 64, 24, WAN_NONE, false, how);
    }
}

/* Every type that a file may hold: depths of one block, of many, and past a tile's. */
CHECK(linear_types) {
    static const int64_t shape[][3] = {{3, 256, 9}, {50, 768, 35}, {130, 1280, 20}};
    for (int type = 0; type < WAN_DTYPES; type++)
        for (size_t i = 0; wan_dtype((dtype)type)->weight && i < COUNT(shape); i++)
            linear_case(t, (dtype)type, shape[i][0], shape[i][1], shape[i][2], WAN_NONE, i % 2,
                        i == 1 ? MIXED : NORMAL);
}

/* scale [1] or [n] when groups is 0, else n x groups scales and offsets of `kind`. */
static void scaled_case(check *t, dtype type, int64_t m, int64_t k, int64_t n, bool per_row,
                        int64_t groups, dtype kind) {
    size_t mark = wan_mark(t->c);
    float *hx, *hw, *hs, *ho = NULL;
    tensor x = new_rows(t, WAN_DIMS(m, k), NORMAL, &hx);
    linear l = {.weight = new_weight(t, type, WAN_DIMS(n, k), NORMAL, &hw)};
    if (groups) {
        l.group_scale = new_weight(t, kind, WAN_DIMS(n, groups), NORMAL, &hs);
        l.group_offset = new_weight(t, kind, WAN_DIMS(n, groups), NORMAL, &ho);
    } else {
        l.scale = new_f32(t, WAN_DIMS(per_row ? n : 1), NORMAL, &hs);
    }
    for (int64_t i = 0; i < n * k; i++) {
        int64_t row = i / k, at = row * groups + i % k / (groups ? k / groups : 1);
        hw[i] = groups ? hw[i] * hs[at] + ho[at] : hw[i] * hs[per_row ? row : 0];
    }
    double *want = host_alloc(t, sizeof *want * (size_t)(m * n)),
           *tol = host_alloc(t, sizeof *tol * (size_t)(m * n));
    reference(t, hx, hw, type, NULL, m, n, k, WAN_NONE, want, tol);
    guard_begin(t, sizeof(float) * (size_t)(m * n));
    tensor y = wan_linear(t->c, x, &l, WAN_NONE);
    guard_end(t, y);
    char what[80];
    snprintf(what, sizeof what, "%s scaled [%lld, %lld] -> %lld, %lld groups of %s",
             wan_dtype(type)->name, (long long)m, (long long)k, (long long)n, (long long)groups,
             wan_dtype(kind)->name);
    expect_near(t, what, y, want, tol);
    tensor z = wan_embed(t->c, &l, new_i32(t, 2, (int32_t[]){(int32_t)n - 1, 0}));
    expect_decoded(t, what, values(t, z), hw + (n - 1) * k, k);
    expect_decoded(t, what, values(t, z) + k, hw, k);
    wan_release(t->c, mark);
}

CHECK(linear_scales) {
    static const dtype coded[] = {WAN_F8_E4M3, WAN_F8_E5M2, WAN_I8};
    static const int64_t shape[][3] = {{1, 96, 1}, {5, 544, 33}, {70, 1088, 50}};
    for (size_t i = 0; i < COUNT(shape); i++) {
        int64_t m = shape[i][0], k = shape[i][1], n = shape[i][2];
        for (size_t type = 0; type < COUNT(coded); type++)
            for (int rows = 0; rows < 2; rows++)
                scaled_case(t, coded[type], m, k, n, rows, 0, WAN_F32);
        scaled_case(t, WAN_MLX_8, m, k, n, false, k / 32, WAN_BF16);
        scaled_case(t, WAN_MLX_4, m, k, n, false, k / 32, WAN_F16);
        scaled_case(t, WAN_MLX_8, m, k, n, false, 1, WAN_F32);
        scaled_case(t, WAN_MLX_4, m, k, n, false, k / 2, WAN_BF16);
    }
    scaled_case(t, WAN_MLX_8, 20, 1152, 17, false, 12, WAN_BF16); /* groups across pieces of 512 */
}

/* What is not a number, or too large for one, stays in its row and is not lost. */
CHECK(linear_infinite) {
    enum { K = 1100, N = 40 };
    static const int64_t rows[] = {3, 130};
    for (size_t i = 0; i < COUNT(rows); i++)
        for (int nan = 0; nan < 2; nan++) {
            float *hw, *x = host_alloc(t, sizeof *x * (size_t)(rows[i] * K));
            fill_floats(t, x, rows[i] * K, NORMAL);
            x[2 * K + 1050] = nan ? NAN : -INFINITY;
            linear l = {.weight = new_weight(t, WAN_F16, WAN_DIMS(N, K), NORMAL, &hw)};
            tensor y =
                wan_linear(t->c, new_from(t, WAN_F32, WAN_DIMS(rows[i], K), x), &l, WAN_NONE);
            const float *got = values(t, y);
            for (int64_t e = 0; e < rows[i] * N; e++)
                expect(t, isfinite(got[e]) == (e / N != 2), "row %lld has %g", (long long)(e / N),
                       (double)got[e]);
        }
}

/* The same bits from any number of threads. */
CHECK(linear_threads) {
    static const int64_t shape[][3] = {
        {3, 1024, 700}, {14, 544, 300}, {130, 544, 300}, {200, 96, 20}};
    for (size_t i = 0; i < COUNT(shape); i++) {
        float *hw;
        tensor x = new_f32(t, WAN_DIMS(shape[i][0], shape[i][1]), NORMAL, NULL);
        linear l = {.weight =
                        new_weight(t, WAN_Q8_0, WAN_DIMS(shape[i][2], shape[i][1]), NORMAL, &hw)};
        tensor y = wan_linear(t->c, x, &l, WAN_GELU_TANH);
        for (int threads = 1; threads <= 7; threads += 2) {
            compute other = *t->c;
            other.device = wan_cpu_open(threads, t->have, &other.err);
            if (!other.device)
                return;
            tensor z = wan_linear(&other, x, &l, WAN_GELU_TANH);
            expect_equal(t, "other number of threads", z.data, y.data, wan_elements(y));
            other.be->close(other.device);
        }
    }
}

/* In one op: the bits of two. */
static void linear_add_case(check *t, int64_t frames, int64_t each, int64_t k, int64_t n,
                            bool gated) {
    size_t mark = wan_mark(t->c);
    int64_t m = frames * each;
    float *hx, *hw, *hs;
    int32_t row_of_frame[4] = {1, 0, 2, 1};
    tensor y = new_rows(t, WAN_DIMS(m, k), NORMAL, NULL);
    tensor x = new_f32(t, WAN_DIMS(m, n), NORMAL, &hx),
           x2 = new_from(t, WAN_F32, WAN_DIMS(m, n), hx);
    linear l = {.weight = new_weight(t, WAN_Q8_0, WAN_DIMS(n, k), NORMAL, &hw),
                .bias = new_f32(t, WAN_DIMS(n), NORMAL, &hs)};
    by_frame gate = {new_f32(t, WAN_DIMS(3, 3 * n), NORMAL, NULL), n,
                     new_i32(t, (int)frames, row_of_frame), each};
    wan_linear_add(t->c, x, y, &l, gated ? &gate : NULL);
    tensor product = wan_linear_f32(t->c, y, &l, WAN_NONE);
    if (gated)
        wan_add_gated(t->c, x2, product, gate);
    else
        wan_add(t->c, x2, product);
    const float *got = values(t, x), *want = values(t, x2);
    for (int64_t i = 0; i < m * n; i++)
        expect(t, got[i] == want[i], "[%lld, %lld] -> %lld, %s: number %lld is %g, expected %g",
               (long long)m, (long long)k, (long long)n, gated ? "gated" : "plain", (long long)i,
               (double)got[i], (double)want[i]);
    wan_release(t->c, mark);
}

CHECK(linear_add) {
    for (int gated = 0; gated < 2; gated++) {
        linear_add_case(t, 1, 1, 64, 1, gated);
        linear_add_case(t, 3, 5, 96, 45, gated);
        linear_add_case(t, 2, 100, 3104, 200, gated);
        linear_add_case(t, 4, 61, 544, 300, gated);
    }
}

static void bench_linear(check *t, dtype type, int64_t m, int64_t k, int64_t n) {
    if (!t->bench)
        return;
    size_t mark = wan_mark(t->c);
    size_t bytes = wan_bytes(wan_tensor(type, WAN_DIMS(n, k), NULL));
    tensor x = new_rows(t, WAN_DIMS(m, k), NORMAL, NULL);
    char *stored = host_alloc(t, bytes), label[64];
    /* Small random numbers of any type: scales of blocks and exponents come out tame. */
    for (size_t i = 0; i < bytes; i += 2)
        memcpy(stored + i, &(uint16_t){(uint16_t)(0x3000 + random_int(t, 256))}, 2);
    linear l = {.weight = wan_tensor(type, WAN_DIMS(n, k), stored)};
    l.weight = place_weight(t, l.weight, WAN_USE_MATRIX);
    snprintf(label, sizeof label, "linear %s [%lld, %lld] -> %lld", wan_dtype(type)->name,
             (long long)m, (long long)k, (long long)n);
    tensor y = wan_new(t->c, t->c->act, WAN_DIMS(m, n));
    double traffic = (double)(bytes + wan_bytes(x) + wan_bytes(y));
    for (bench b = bench_begin(t, label, 2.0 * (double)m * (double)k * (double)n, traffic);
         bench_next(&b);)
        wan_linear_into(t->c, y, x, &l, WAN_NONE);
    wan_release(t->c, mark);
}

CHECK(linear_speed) {
    if (t->k && t->k->gemm_tile == t->twin->gemm_tile) { /* a smaller one, so that it ends */
        bench_linear(t, WAN_Q8_0, 128, 3072, 1024);
        return;
    }
    bench_linear(t, WAN_Q8_0, 128, 3072, 1024);
    for (size_t i = 0; i < COUNT(types); i++)
        bench_linear(t, types[i], 1125, 3072, 3072);
    bench_linear(t, WAN_Q8_0, 1125, 3072, 14336);
    bench_linear(t, WAN_Q8_0, 1125, 14336, 3072);
    bench_linear(t, WAN_Q8_0, 4725, 3072, 3072);
    bench_linear(t, WAN_Q8_0, 1, 3072, 18432);
    bench_linear(t, WAN_Q8_0, 2, 3072, 18432);
    bench_linear(t, WAN_Q8_0, 8, 3072, 18432);
    bench_linear(t, WAN_Q8_0, 14, 4096, 10240);
    bench_linear(t, WAN_Q8_0, 28, 4096, 10240);
    bench_linear(t, WAN_Q8_0, 126, 4096, 10240);
    bench_linear(t, WAN_BF16, 14, 4096, 10240);
    bench_linear(t, WAN_F32, 512, 256, 256);
    bench_linear(t, WAN_Q8_0, 512, 256, 1024);
    static const int64_t large[][2] = {{3072, 3072}, {3072, 9216}, {3072, 14336}, {14336, 3072}};
    for (size_t i = 0; !t->k && i < COUNT(large); i++) {
        bench_linear(t, WAN_BF16, 4725, large[i][0], large[i][1]);
        bench_linear(t, WAN_Q8_0, 4725, large[i][0], large[i][1]);
        bench_linear(t, WAN_Q4_K, 4725, large[i][0], large[i][1]);
        bench_linear(t, WAN_BF16, 27280, large[i][0], large[i][1]);
    }
}
