/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <float.h>
#include <math.h>

static const int64_t shape[][2] = {{1, 2},    {3, 10},   {7, 36},  {5, 130},
                                   {17, 256}, {2, 3072}, {4, 5121}};

/* Mean and 1 / sqrt(variance + eps) of a row; without `centre` the mean is 0. */
static void moments(const float *x, int64_t n, double eps, bool centre, double *mean,
                    double *scale) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; centre && i < n; i++)
        sum += x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *scale = 1 / sqrt(squares / (double)n + eps);
}

/* Rounding of the mean moves every element by scale * |mean|; the rest is relative. */
static double tolerance(const check *t, double x, double mean, double scale, double gain,
                        double shift) {
    /* A GPU sums in float32: its mean is off by as much as the numbers, 1 / scale, are rounded. */
    double sums = t->k ? 0 : 2 * gain;
    return 0x1p-24 * (sums + 8 * fabs((x - mean) * scale * gain) + 4 * fabs(mean * scale * gain) +
                      2 * fabs(shift)) +
           FLT_MIN;
}

typedef struct result {
    double *want, *tol;
} result;

static result new_result(check *t, int64_t n) {
    return (result){host_alloc(t, sizeof(double) * (size_t)n),
                    host_alloc(t, sizeof(double) * (size_t)n)};
}

/* want = (x - mean) * scale * gain[i] + shift[i] */
static void normalise_row(const check *t, result r, int64_t at, const float *x, int64_t n,
                          double eps, bool centre, double plus, const float *gain,
                          const float *shift) {
    double mean, scale;
    moments(x, n, eps, centre, &mean, &scale);
    for (int64_t i = 0; i < n; i++) {
        double g = plus + gain[i], s = shift ? shift[i] : 0;
        r.want[at + i] = (x[i] - mean) * scale * g + s;
        r.tol[at + i] = tolerance(t, x[i], mean, scale, fabs(gain[i]) + plus, s);
    }
}

CHECK(layer_norm) {
    for (size_t s = 0; s < COUNT(shape); s++)
        for (fill how = NORMAL; how < FILLS; how++) {
            size_t mark = wan_mark(t->c);
            int64_t n = shape[s][0], dim = shape[s][1];
            float *hx, *hg, *hb;
            tensor x = new_rows(t, WAN_DIMS(n, dim), how, &hx);
            tensor g = new_f32(t, WAN_DIMS(dim), NORMAL, &hg),
                   b = new_f32(t, WAN_DIMS(dim), NORMAL, &hb);
            result r = new_result(t, n * dim);
            for (int64_t i = 0; i < n; i++)
                normalise_row(t, r, i * dim, hx + i * dim, dim, 1e-6f, true, 0, hg, hb);
            guard_begin(t, sizeof(float) * (size_t)(n * dim));
            tensor y = wan_layer_norm(t->c, x, g, b, 1e-6f);
            guard_end(t, y);
            expect_near(t, "layer norm", y, r.want, r.tol);
            wan_release(t->c, mark);
        }
}

CHECK(norm_modulate) {
    static const int32_t row_of_frame[] = {1, 0, 0, 2};
    for (size_t s = 0; s < COUNT(shape); s++) {
        size_t mark = wan_mark(t->c);
        int64_t each = shape[s][0], n = 4 * each, dim = shape[s][1];
        float *hx, *hm;
        tensor x = new_rows(t, WAN_DIMS(n, dim), NORMAL, &hx),
               m = new_f32(t, WAN_DIMS(3, 6 * dim + 1), NORMAL, &hm);
        by_frame shift = {m, 2 * dim, new_i32(t, 4, row_of_frame), each}, scale = shift;
        scale.at = 5 * dim + 1;
        result r = new_result(t, n * dim);
        for (int64_t i = 0; i < n; i++) {
            const float *row = hm + row_of_frame[i / each] * (6 * dim + 1);
            normalise_row(t, r, i * dim, hx + i * dim, dim, 1e-6f, true, 1, row + scale.at,
                          row + shift.at);
        }
        guard_begin(t, sizeof(float) * (size_t)(n * dim));
        tensor y = wan_norm_modulate(t->c, x, shift, scale, 1e-6f);
        guard_end(t, y);
        expect_near(t, "modulated", y, r.want, r.tol);
        wan_release(t->c, mark);
    }
    tensor x = new_rows(t, WAN_DIMS(1000, 3072), NORMAL, NULL),
           m = new_f32(t, WAN_DIMS(1, 3072), NORMAL, NULL);
    by_frame same = {m, 0, new_i32(t, 1, &(int32_t){0}), 1000};
    size_t mark = wan_mark(t->c);
    for (bench b = bench_begin(t, "norm_modulate [1000, 3072]", 0, 2.0 * (double)wan_bytes(x));
         bench_next(&b);) {
        wan_release(t->c, mark);
        wan_norm_modulate(t->c, x, same, same, 1e-6f);
    }
}

CHECK(rms_norm) {
    for (size_t s = 0; s < COUNT(shape); s++)
        for (fill how = NORMAL; how < FILLS; how++) {
            size_t mark = wan_mark(t->c);
            int64_t n = shape[s][0], dim = shape[s][1];
            float *hx, *hg;
            tensor x = new_rows(t, WAN_DIMS(n, dim), how, &hx),
                   g = new_f32(t, WAN_DIMS(dim), NORMAL, &hg);
            result r = new_result(t, n * dim);
            for (int64_t i = 0; i < n; i++)
                normalise_row(t, r, i * dim, hx + i * dim, dim, 1e-6f, false, 0, hg, NULL);
            guard_begin(t, sizeof(float) * (size_t)(n * dim));
            tensor y = wan_rms_norm(t->c, x, g, 1e-6f);
            guard_end(t, y);
            expect_near(t, "rms norm", y, r.want, r.tol);
            wan_release(t->c, mark);
        }
}

/* Cosines and sines of any angles: [count, pairs, 2]. */
static tensor new_turns(check *t, int64_t count, int64_t pairs, float **host) {
    tensor x = wan_new(t->c, WAN_F32, WAN_DIMS(count, pairs, 2));
    *host = host_alloc(t, wan_bytes(x) + sizeof(float));
    for (int64_t i = 0; i < count * pairs; i++) {
        double angle = 3 * random_normal(t);
        (*host)[2 * i] = (float)cos(angle);
        (*host)[2 * i + 1] = (float)sin(angle);
    }
    wan_upload(t->c, x, *host);
    return x;
}

static void rope_case(check *t, const int64_t grid[3], const int64_t pairs[3], int heads,
                      bool turn) {
    size_t mark = wan_mark(t->c);
    int64_t n = grid[0] * grid[1] * grid[2], half = pairs[0] + pairs[1] + pairs[2],
            dim = 2 * half * heads;
    float *hx, *hg, *table[3];
    tensor g = new_f32(t, WAN_DIMS(dim), NORMAL, &hg);
    rope r = {.grid = {grid[0], grid[1], grid[2]}, .pairs = {pairs[0], pairs[1], pairs[2]}};
    for (int i = 0; i < 3; i++)
        r.table[i] = new_turns(t, grid[i], pairs[i], &table[i]);
    guard_begin(t, sizeof(float) * (size_t)(n * dim));
    tensor x = new_rows(t, WAN_DIMS(n, dim), NORMAL, &hx);
    result a = new_result(t, n * dim), b = new_result(t, n * dim);
    for (int64_t i = 0; i < n; i++)
        normalise_row(t, a, i * dim, hx + i * dim, dim, 1e-6f, false, 0, hg, NULL);
    for (int64_t i = 0; i < n * dim; i += 2) {
        int64_t token = i / dim, pair = i % dim / 2 % half, axis = 0;
        int64_t at[3] = {token / (grid[1] * grid[2]), token / grid[2] % grid[1], token % grid[2]};
        while (pair >= pairs[axis])
            pair -= pairs[axis++];
        const float *cs = table[axis] + 2 * (at[axis] * pairs[axis] + pair);
        double c = turn ? cs[0] : 1, s = turn ? cs[1] : 0;
        b.want[i] = a.want[i] * c - a.want[i + 1] * s;
        b.want[i + 1] = a.want[i] * s + a.want[i + 1] * c;
        b.tol[i] = b.tol[i + 1] =
            a.tol[i] + a.tol[i + 1] + 0x1p-23 * (fabs(a.want[i]) + fabs(a.want[i + 1]));
    }
    wan_qk_norm_rope(t->c, x, g, 1e-6f, heads, turn ? &r : NULL);
    guard_end(t, x);
    expect_near(t, "norm and rope", x, b.want, b.tol);
    wan_release(t->c, mark);
}

CHECK(qk_norm_rope) {
    static const int64_t grid[][3] = {{1, 1, 1}, {3, 2, 5}, {2, 4, 3}};
    static const int64_t pairs[][3] = {{1, 0, 0}, {3, 1, 1}, {4, 3, 3}, {22, 21, 21}};
    for (size_t g = 0; g < COUNT(grid); g++)
        for (size_t p = 0; p < COUNT(pairs); p++)
            for (int turn = 0; turn < 2; turn++)
                rope_case(t, grid[g], pairs[p], (int)(1 + 2 * g), turn);
}
