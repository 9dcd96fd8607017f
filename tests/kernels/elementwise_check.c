/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <float.h>
#include <math.h>

static const int64_t sizes[][2] = {{1, 1}, {3, 7}, {5, 64}, {33, 515}, {2, 20000}};

static double *new_doubles(check *t, int64_t n) {
    return host_alloc(t, sizeof(double) * (size_t)n);
}

/* x op= y, one rounding. */
static void pair_case(check *t, const int64_t dim[2], bool product) {
    size_t mark = wan_mark(t->c);
    int64_t n = dim[0] * dim[1];
    float *hx, *hy;
    tensor y = new_act(t, 2, dim, NORMAL, &hy);
    guard_begin(t, sizeof(float) * (size_t)n);
    tensor x = new_rows(t, 2, dim, MIXED, &hx);
    double *want = new_doubles(t, n), *tol = new_doubles(t, n);
    for (int64_t i = 0; i < n; i++) {
        want[i] = product ? (double)hx[i] * hy[i] : (double)hx[i] + hy[i];
        tol[i] = 0x1p-24 * fabs(want[i]) + 0x1p-149;
    }
    (product ? wan_mul : wan_add)(t->c, x, y);
    guard_end(t, x);
    expect_near(t, product ? "product" : "sum", x, want, tol);
    wan_release(t->c, mark);
}

CHECK(add) {
    for (size_t s = 0; s < COUNT(sizes); s++)
        pair_case(t, sizes[s], false);
    tensor x = new_rows(t, WAN_DIMS(1000, 3072), ZERO, NULL);
    for (bench b = bench_begin(t, "add [1000, 3072]", 0, 3.0 * (double)wan_bytes(x));
         bench_next(&b);)
        wan_add(t->c, x, x);
}

CHECK(mul) {
    for (size_t s = 0; s < COUNT(sizes); s++)
        pair_case(t, sizes[s], true);
}

CHECK(add_gated) {
    static const int32_t row_of_frame[] = {2, 0, 1};
    for (size_t s = 0; s < COUNT(sizes); s++) {
        size_t mark = wan_mark(t->c);
        int64_t each = sizes[s][0], tokens = 3 * each, dim = sizes[s][1], n = tokens * dim;
        float *hx, *hy, *hm;
        tensor y = new_act(t, WAN_DIMS(tokens, dim), NORMAL, &hy),
               m = new_f32(t, WAN_DIMS(3, 2 * dim), NORMAL, &hm);
        by_frame gate = {m, dim, new_i32(t, 3, row_of_frame), each};
        guard_begin(t, sizeof(float) * (size_t)n);
        tensor x = new_rows(t, WAN_DIMS(tokens, dim), NORMAL, &hx);
        double *want = new_doubles(t, n), *tol = new_doubles(t, n);
        for (int64_t i = 0; i < n; i++) {
            double product =
                (double)hy[i] * hm[row_of_frame[i / dim / each] * 2 * dim + dim + i % dim];
            want[i] = hx[i] + product;
            tol[i] = 0x1p-24 * (fabs(want[i]) + 2 * fabs(product)) + FLT_MIN;
        }
        wan_add_gated(t->c, x, y, gate);
        guard_end(t, x);
        expect_near(t, "gated", x, want, tol);
        wan_release(t->c, mark);
    }
}

CHECK(activate) {
    for (size_t s = 0; s < COUNT(sizes); s++)
        for (activation act = WAN_NONE; act <= WAN_SILU; act++) {
            size_t mark = wan_mark(t->c);
            int64_t n = sizes[s][0] * sizes[s][1];
            float *hx;
            tensor x = new_rows(t, 2, sizes[s], NORMAL, &hx);
            double *want = new_doubles(t, n), *tol = new_doubles(t, n);
            for (int64_t i = 0; i < n; i++) {
                double v = hx[i],
                       u = act == WAN_SILU ? v : 1.5957691216057308 * (v + 0.044715 * v * v * v);
                want[i] = act == WAN_NONE ? v : v / (1 + exp(-u));
                tol[i] =
                    act == WAN_NONE ? 0 : 0x1p-24 * fabs(want[i]) * (8 + 4 * fabs(u)) + FLT_MIN;
            }
            guard_begin(t, sizeof(float) * (size_t)n);
            tensor y = wan_activate(t->c, x, act);
            guard_end(t, y);
            expect_near(t, "activation", y, want, tol);
            expect_equal(t, "input", values(t, x), hx, n);
            wan_release(t->c, mark);
        }
}

CHECK(rows) {
    static const dtype types[] = {WAN_F32,  WAN_F16,     WAN_BF16,  WAN_Q8_0,   WAN_Q4_0,
                                  WAN_Q5_1, WAN_F8_E4M3, WAN_MLX_4, WAN_IQ4_NL, WAN_Q6_K};
    static const int32_t ids[] = {4, 0, 4, 2, 1, 3, 0};
    static const int64_t dims[] = {32, 96, 7, 1, 512};
    for (size_t type = 0; type < COUNT(types); type++)
        for (size_t d = 0; d < COUNT(dims); d++) {
            int64_t dim = dims[d], n = COUNT(ids);
            if (dim % wan_dtype(types[type])->block)
                continue;
            float *table, *want = host_alloc(t, sizeof *want * (size_t)(n * dim));
            tensor w = type % 2 ? new_table(t, types[type], 5, dim, MIXED, &table)
                                : new_weight(t, types[type], WAN_DIMS(5, dim), MIXED, &table);
            tensor which = new_i32(t, n, ids);
            for (int64_t i = 0; i < n * dim; i++)
                want[i] = table[ids[i / dim] * dim + i % dim];
            guard_begin(t, sizeof(float) * (size_t)(n * dim));
            tensor y = wan_rows(t->c, w, which);
            guard_end(t, y);
            for (int64_t i = 0; i < n; i++)
                expect_decoded(t, "rows", values(t, y) + i * dim, want + i * dim, dim);
        }
}

CHECK(add_vector) {
    for (size_t s = 0; s < COUNT(sizes); s++) {
        int64_t dim = sizes[s][1], n = sizes[s][0] * dim;
        float *hx, *hv;
        tensor x = new_rows(t, 2, sizes[s], NORMAL, &hx),
               v = new_f32(t, WAN_DIMS(dim), NORMAL, &hv);
        double *want = new_doubles(t, n), *tol = new_doubles(t, n);
        for (int64_t i = 0; i < n; i++) {
            want[i] = (double)hx[i] + hv[i % dim];
            tol[i] = 0x1p-24 * fabs(want[i]);
        }
        guard_begin(t, sizeof(float) * (size_t)n);
        tensor y = wan_add_vector(t->c, x, v);
        guard_end(t, y);
        expect_near(t, "sum", y, want, tol);
    }
}

/* Spec dit.md 2.1 and 2.7, element by element. */
static void patch_case(check *t, const int64_t shape[4], const int64_t patch[3]) {
    int64_t cells = patch[0] * patch[1] * patch[2], width = shape[0] * cells;
    int64_t grid[3] = {shape[1] / patch[0], shape[2] / patch[1], shape[3] / patch[2]};
    int64_t tokens = grid[0] * grid[1] * grid[2], n = tokens * width;
    float *hx, *want = host_alloc(t, sizeof *want * (size_t)n),
               *back = host_alloc(t, sizeof *back * (size_t)n);
    tensor x = new_f32(t, 4, shape, NORMAL, &hx);
    for (int64_t i = 0; i < n; i++) { /* element [c, f, y, x] */
        int64_t col = i % shape[3], row = i / shape[3] % shape[2],
                f = i / shape[3] / shape[2] % shape[1];
        int64_t c = i / shape[3] / shape[2] / shape[1];
        int64_t token = (f / patch[0] * grid[1] + row / patch[1]) * grid[2] + col / patch[2];
        int64_t cell = (f % patch[0] * patch[1] + row % patch[1]) * patch[2] + col % patch[2];
        want[token * width + c * cells + cell] = hx[i];
        back[token * width + cell * shape[0] + c] = hx[i];
    }
    guard_begin(t, sizeof(float) * (size_t)n);
    tensor y = wan_patchify(t->c, x, patch);
    guard_end(t, y);
    round_floats(y.type, want, n);
    expect_equal(t, "patchify", values(t, y), want, n);
    tensor tokens_of_back = new_from(t, t->rows, WAN_DIMS(tokens, width), back);
    guard_begin(t, sizeof(float) * (size_t)n);
    tensor z = wan_new(t->c, WAN_F32, 4, shape);
    wan_unpatchify_into(t->c, z, tokens_of_back, patch);
    guard_end(t, z);
    round_floats(t->rows, hx, n);
    expect_equal(t, "unpatchify", values(t, z), hx, n);
}

CHECK(patches) {
    static const int64_t shape[][4] = {{1, 1, 2, 2}, {3, 4, 6, 10}, {48, 2, 4, 8}, {5, 6, 6, 6}};
    static const int64_t patch[][3] = {{1, 2, 2}, {1, 1, 1}, {2, 2, 2}};
    for (size_t s = 0; s < COUNT(shape); s++)
        for (size_t p = 0; p < COUNT(patch); p++)
            if (shape[s][1] % patch[p][0] == 0)
                patch_case(t, shape[s], patch[p]);
}
