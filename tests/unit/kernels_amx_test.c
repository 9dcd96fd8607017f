/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of kernels_amx.h on a model of the instructions, as few machines have them: which
 * numbers are read, multiplied and written.  Memory is as large as the contract says, so that the
 * sanitizers see what is read besides. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "amx_model.h"

static void t_begin(void) {
    static const tile_shape all[8] = {{16, 64}, {16, 64}, {16, 64}, {16, 64},
                                      {16, 64}, {16, 64}, {16, 64}, {16, 64}};
    set_shapes(all);
}

static float float_at(const uint8_t *row, int i) {
    float x;
    memcpy(&x, row + 4 * i, sizeof x);
    return x;
}

static float bf16_at(const uint8_t *row, int i) {
    uint16_t h;
    memcpy(&h, row + 2 * i, sizeof h);
    return wan_brain_to_float(h);
}

static void t_dot(int n, int a, int b) {
    assert_non_null(shape);
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 16; c++) {
            float sum = 0;
            for (int i = 0; i < 32; i++)
                sum = fmaf(bf16_at(tiles[a][r], i), bf16_at(tiles[b][i / 2], 2 * c + i % 2), sum);
            sum += float_at(tiles[n][r], c);
            memcpy(tiles[n][r] + 4 * c, &sum, sizeof sum);
        }
}

static void t_copy(uint16_t *to, const uint16_t *from, int64_t n) {
    assert_true(n > 0 && n <= 32);
    memcpy(to, from, sizeof *to * (size_t)n);
    memset(to + n, 0, sizeof *to * (size_t)(32 - n));
}

enum { NR = 32 };

#include "backend/cpu/kernels_amx.h"

/* Whole numbers, so that sums are exact in any order. */
static int number(int64_t seed) {
    return (int)((uint64_t)(seed + 1) * 0x9e3779b97f4a7c15u >> 33) % 33 - 16;
}

static uint16_t bf16_of(int x) {
    return wan_brain_from_float((float)x);
}

typedef enum layout { EVEN, BACKWARDS, APART, SHARED } layout;

/* Rows [k] of a, each in memory that ends with it, or in a matrix that ends with the last. */
static void make_rows(const uint16_t **row, uint16_t **own, int rows, int64_t k, layout how) {
    int64_t stride = k + 6;
    uint16_t *all = malloc(sizeof *all * (size_t)((rows - 1) * stride + k));
    assert_non_null(all);
    own[rows] = all;
    for (int r = 0; r < rows; r++) {
        int at = how == BACKWARDS ? rows - 1 - r : r;
        own[r] = how == APART ? malloc(sizeof *all * (size_t)k) : NULL;
        uint16_t *to = how == APART ? own[r] : how == SHARED && r > 2 ? all : all + at * stride;
        assert_non_null(to);
        for (int64_t i = 0; i < k; i++)
            to[i] = bf16_of(number((how == SHARED && r > 2 ? 0 : r) * 1000 + i));
        row[r] = to;
    }
}

static void product_case(int rows, int cols, int64_t k, layout how, bool add) {
    const uint16_t *row[MR];
    uint16_t *own[MR + 1], *panel = aligned_alloc(64, sizeof *panel * (size_t)(k * NR));
    int64_t ld = cols + 3;
    size_t floats = (size_t)((rows - 1) * ld + cols);
    float *dst = malloc(sizeof *dst * floats);
    assert_non_null(panel);
    assert_non_null(dst);
    make_rows(row, own, rows, k, how);
    for (int64_t i = 0; i < k * NR; i++)
        panel[i] = bf16_of(number(i * 7 + 5));
    for (size_t i = 0; i < floats; i++)
        dst[i] = (float)number((int64_t)i * 3);
    bf16_tile(dst, ld, rows, cols, row, k, panel, add);
    for (size_t at = 0; at < floats; at++) {
        int64_t r = (int64_t)at / ld, j = (int64_t)at % ld;
        float want = add || j >= cols ? (float)number((int64_t)at * 3) : 0;
        for (int64_t i = 0; j < cols && i < k; i++)
            want += wan_brain_to_float(row[r][i]) *
                    wan_brain_to_float(panel[(i / 2 * NR + j) * 2 + i % 2]);
        if (dst[at] != want)
            fail_msg("(%d, %d) of %d x %d x %d, rows %d: %g, expected %g", (int)r, (int)j, rows,
                     cols, (int)k, (int)how, (double)dst[at], (double)want);
    }
    for (int r = 0; r <= rows; r++)
        free(own[r]);
    free(panel);
    free(dst);
}

static void test_every_size(void **state) {
    (void)state;
    for (int rows = 1; rows <= MR; rows++)
        for (int cols = 1; cols <= NR; cols += cols % 5 + 1)
            product_case(rows, cols, 2 + rows % 3 * 20, (layout)(cols % 4), rows % 2);
}

static void test_depths(void **state) {
    static const int64_t depth[] = {2, 30, 32, 34, 44, 64, 94, 128, 512};
    static const int size[][2] = {{32, 32}, {16, 32}, {32, 16}, {16, 16}, {31, 17}, {1, 1}};
    (void)state;
    for (size_t d = 0; d < sizeof depth / sizeof *depth; d++)
        for (size_t s = 0; s < sizeof size / sizeof *size; s++)
            for (int how = EVEN; how <= SHARED; how++) {
                product_case(size[s][0], size[s][1], depth[d], (layout)how, false);
                product_case(size[s][0], size[s][1], depth[d], (layout)how, true);
            }
}

/* Rows of a tile that is not full have the bits they have in a full one. */
static void test_same_bits(void **state) {
    enum { K = 70 };
    const uint16_t *row[MR];
    static uint16_t a[MR][K], panel[K * NR] __attribute__((aligned(64)));
    static float whole[MR][NR], part[MR][NR];
    (void)state;
    for (int r = 0; r < MR; r++) {
        row[r] = a[r];
        for (int i = 0; i < K; i++)
            a[r][i] = wan_brain_from_float(sinf((float)(r * K + i)));
        for (int j = 0; j < NR; j++)
            whole[r][j] = part[r][j] = cosf((float)(r * NR + j));
    }
    for (int i = 0; i < K * NR; i++)
        panel[i] = wan_brain_from_float(sinf((float)i * 1.7f));
    bf16_tile(whole[0], NR, MR, NR, row, K, panel, true);
    bf16_tile(part[0], NR, 7, 21, row, K, panel, true);
    bf16_tile(part[7], NR, 25, 21, row + 7, K, panel, true);
    for (int r = 0; r < MR; r++)
        assert_memory_equal(whole[r], part[r], 21 * sizeof(float));
}

/* Parts at once have the bits of one part after the other. */
static void parts_case(int rows, int cols) {
    enum { PARTS = 3, K = 38, STEP_ROWS = MR + 3 };
    const uint16_t *row[PARTS * STEP_ROWS] = {0};
    static uint16_t a[PARTS][MR][K], panel[PARTS * K * NR] __attribute__((aligned(64)));
    static float once[MR][NR], each[MR][NR];
    for (int p = 0; p < PARTS; p++)
        for (int r = 0; r < rows; r++) {
            row[p * STEP_ROWS + r] = a[p][(r * 5 + p) % rows];
            for (int i = 0; i < K; i++)
                a[p][r][i] = wan_brain_from_float(sinf((float)((p * MR + r) * K + i)));
        }
    for (int i = 0; i < PARTS * K * NR; i++)
        panel[i] = wan_brain_from_float(sinf((float)i * 1.3f));
    for (int i = 0; i < MR * NR; i++)
        once[i / NR][i % NR] = each[i / NR][i % NR] = cosf((float)i);
    bf16_parts(once[0], NR, rows, cols, row, STEP_ROWS, PARTS, K, panel, rows * 100);
    for (int p = 0; p < PARTS; p++)
        bf16_tile(each[0], NR, rows, cols, row + p * STEP_ROWS, K, panel + p * K * NR, true);
    assert_memory_equal(once, each, sizeof once);
}

static void test_parts(void **state) {
    (void)state;
    for (int rows = 1; rows <= MR; rows += rows % 3 + 1)
        for (int cols = 1; cols <= NR; cols += cols % 7 + 1)
            parts_case(rows, cols);
    parts_case(MR, NR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_every_size),
        cmocka_unit_test(test_depths),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
