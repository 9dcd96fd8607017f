/* SPDX-License-Identifier: Apache-2.0 */
/* The tiles of kernels_amx_int8.h on a model of the instructions: which codes and scales are read,
 * multiplied and written, to the bit.  Memory is as large as the contract says, so that the
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

static void t_begin_int8(void) {
    static const tile_shape wanted[8] = {{12, 64}, {12, 64}, {12, 64}, {12, 64},
                                         {12, 32}, {12, 32}, {8, 64},  {8, 64}};
    set_shapes(wanted);
}

/* The shapes of the three must fit each other, or the machine stops. */
static void t_dot_int8(int n, int a, int b) {
    assert_non_null(shape);
    assert_true(shape[n].rows == shape[a].rows && shape[n].bytes == shape[b].bytes);
    assert_int_equal(shape[a].bytes, 4 * shape[b].rows);
    for (int r = 0; r < shape[n].rows; r++)
        for (int c = 0; c < shape[n].bytes / 4; c++) {
            int32_t sum;
            memcpy(&sum, tiles[n][r] + 4 * c, sizeof sum);
            for (int i = 0; i < shape[a].bytes; i++)
                sum += (int8_t)tiles[a][r][i] * (int8_t)tiles[b][i / 4][4 * c + i % 4];
            memcpy(tiles[n][r] + 4 * c, &sum, sizeof sum);
        }
}

typedef struct vec {
    float x[16];
} vec;

#define EACH(value)                                                                                \
    vec all;                                                                                       \
    for (int i = 0; i < 16; i++)                                                                   \
        all.x[i] = (value);                                                                        \
    return all;

static vec v_zero(void) {
    return (vec){{0}};
}

static vec v_set(float x) {
    EACH(x)
}

static vec v_load(const float *p) {
    EACH(p[i])
}

static void v_store(float *p, vec x) {
    memcpy(p, x.x, sizeof x.x);
}

static vec v_mul(vec a, vec b) {
    EACH(a.x[i] * b.x[i])
}

static vec v_sum(vec s, vec a, vec b) {
    EACH(fmaf(a.x[i], b.x[i], s.x[i]))
}

static vec v_from_i32(const int32_t *p) {
    EACH((float)p[i])
}

static float half_float(uint16_t h) {
    return wan_half_to_float(h);
}

/* As kernels.h says, of finite numbers. */
static float quantise(int8_t *code, const float *x) {
    float most = 0;
    for (int i = 0; i < 32; i++)
        most = fmaxf(most, fabsf(x[i]));
    for (int i = 0; i < 32; i++)
        code[i] = most > 0 ? (int8_t)nearbyintf(x[i] * (127 / most)) : 0;
    return most / 127;
}

static void transpose_words(char *dst, int64_t dst_ld, const char *src, int64_t src_ld,
                            int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            memcpy(dst + c * dst_ld + 4 * r, src + r * src_ld + 4 * c, 4);
}

#include "backend/cpu/kernels_amx_int8.h"

static uint32_t hash(int64_t seed) {
    return (uint32_t)((uint64_t)(seed + 1) * 0x9e3779b97f4a7c15u >> 32);
}

/* All codes there are, the lowest more often. */
static int8_t code_of(int64_t seed) {
    uint32_t h = hash(seed);
    return (int8_t)(h % 7 == 0 ? -128 : (int)(h >> 8) % 256 - 128);
}

static float number(int64_t seed) {
    return (float)hash(seed) * 0x1p-32f - 0.5f;
}

/* The same numbers as a side of a product, in the order that one may think of. */
typedef struct side {
    int8_t *code; /* [count, groups, GROUP] */
    float *scale; /* [count, groups] */
    int64_t groups;
} side;

static side new_side(int count, int64_t groups, int64_t seed) {
    side s = {malloc((size_t)(count * groups * GROUP)),
              malloc(sizeof *s.scale * (size_t)(count * groups)), groups};
    assert_non_null(s.code);
    assert_non_null(s.scale);
    for (int64_t i = 0; i < count * groups * GROUP; i++)
        s.code[i] = code_of(seed + i);
    for (int64_t i = 0; i < count * groups; i++)
        s.scale[i] = number(seed * 3 + i);
    return s;
}

static void free_side(const side *s) {
    free(s->code);
    free(s->scale);
}

/* Row r as the header keeps it. */
static void put_row(char *to, const side *s, int64_t r) {
    char one[INT8_ROW];
    for (int64_t g = 0; g < s->groups; g++) {
        int64_t at = r * s->groups + g;
        amx_int8_from_codes(one, s->code + at * GROUP, s->scale[at], GROUP);
        memcpy(to + GROUP * g, one, GROUP);
        memcpy(to + GROUP * s->groups + 4 * g, one + GROUP, 4);
    }
}

typedef enum layout { EVEN, BACKWARDS, APART, SHARED } layout;

/* Rows in memory that ends with each, or in a matrix that ends with the last. */
static void make_rows(const void **row, char **own, int rows, const side *a, layout how) {
    size_t bytes = (size_t)(INT8_ROW * a->groups), stride = bytes + 4;
    char *all = malloc((size_t)(rows - 1) * stride + bytes);
    assert_non_null(all);
    own[rows] = all;
    for (int r = 0; r < rows; r++) {
        int at = how == BACKWARDS ? rows - 1 - r : how == SHARED && r > 2 ? 2 : r;
        own[r] = how == APART ? malloc(bytes) : NULL;
        char *to = how == APART ? own[r] : all + (size_t)at * stride;
        assert_non_null(to);
        if (how != SHARED || r <= 2)
            put_row(to, a, r);
        row[r] = to;
    }
}

/* What a tile must make of a row and a column, in this order. */
static float sum_of(const side *a, int64_t r, const side *b, int64_t j, float sum) {
    for (int64_t g = 0; g < a->groups; g++) {
        int64_t x = r * a->groups + g, y = j * b->groups + g;
        int32_t whole = 0;
        for (int i = 0; i < GROUP; i++)
            whole += a->code[x * GROUP + i] * b->code[y * GROUP + i];
        sum = fmaf((float)whole, a->scale[x] * b->scale[y], sum);
    }
    return sum;
}

/* Columns to a panel; those past `cols` must count as zeros, whatever was there. */
static char *panel_of(const side *b, int cols) {
    size_t bytes = (size_t)(INT8_PANEL * b->groups), stride = (size_t)(INT8_ROW * b->groups) + 8;
    char *rows = malloc(stride * (size_t)(cols - 1) + stride - 8), *panel = malloc(bytes + 64);
    assert_non_null(rows);
    assert_non_null(panel);
    memset(panel, 0x55, bytes + 64);
    for (int j = 0; j < cols; j++)
        put_row(rows + stride * (size_t)j, b, j);
    amx_pack_int8(panel, rows, stride, cols, b->groups);
    for (int i = 0; i < 64; i++)
        assert_int_equal(panel[bytes + (size_t)i], 0x55);
    for (size_t i = 0; i < bytes; i++)
        if (i % INT8_STRIDE / 4 >= (size_t)cols)
            assert_int_equal(panel[i], 0);
    free(rows);
    return panel;
}

static void product_case(int rows, int cols, int64_t groups, layout how, bool add) {
    const void *row[INT8_MR];
    char *own[INT8_MR + 1];
    int64_t ld = cols + 3;
    size_t floats = (size_t)((rows - 1) * ld + cols);
    float *dst = malloc(sizeof *dst * floats);
    side a = new_side(rows, groups, rows + 11), b = new_side(cols, groups, cols + 1000);
    char *panel = panel_of(&b, cols);
    assert_non_null(dst);
    make_rows(row, own, rows, &a, how);
    for (size_t i = 0; i < floats; i++)
        dst[i] = number((int64_t)i * 3) * 1000;
    amx_int8_tile(dst, ld, rows, cols, row, groups, panel, add);
    for (size_t at = 0; at < floats; at++) {
        int64_t r = (int64_t)at / ld, j = (int64_t)at % ld;
        float old = number((int64_t)at * 3) * 1000, want = add || j >= cols ? old : 0;
        if (j < cols)
            want = sum_of(&a, how == SHARED && r > 2 ? 2 : r, &b, j, want);
        if (memcmp(&dst[at], &want, sizeof want))
            fail_msg("(%d, %d) of %d x %d, %d groups, rows %d: %g, expected %g", (int)r, (int)j,
                     rows, cols, (int)groups, (int)how, (double)dst[at], (double)want);
    }
    for (int r = 0; r <= rows; r++)
        free(own[r]);
    free_side(&a);
    free_side(&b);
    free(panel);
    free(dst);
}

static void test_every_size(void **state) {
    (void)state;
    for (int rows = 1; rows <= INT8_MR; rows++)
        for (int cols = 1; cols <= INT8_NR; cols += cols % 5 + 1)
            product_case(rows, cols, 1 + rows % 3, (layout)(cols % 4), rows % 2);
}

static void test_depths(void **state) {
    static const int64_t depth[] = {1, 2, 3, 4, 5, 7, 15, 16, 17, 33, 48};
    static const int size[][2] = {{24, 32}, {12, 32}, {24, 16}, {12, 16}, {23, 17}, {1, 1}};
    (void)state;
    for (size_t d = 0; d < sizeof depth / sizeof *depth; d++)
        for (size_t s = 0; s < sizeof size / sizeof *size; s++)
            for (int how = EVEN; how <= SHARED; how++) {
                product_case(size[s][0], size[s][1], depth[d], (layout)how, false);
                product_case(size[s][0], size[s][1], depth[d], (layout)how, true);
            }
}

/* A row's codes, then its scales. */
static void expect_row(const char *row, int64_t groups, const int8_t *code, const float *scale) {
    assert_memory_equal(row, code, (size_t)(GROUP * groups));
    assert_memory_equal(row + GROUP * groups, scale, sizeof *scale * (size_t)groups);
}

static void test_rows_of_floats(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 3 * GROUP; n += n % GROUP < 3 ? 1 : 7) {
        int64_t groups = (n + GROUP - 1) / GROUP;
        float *x = malloc(sizeof *x * (size_t)n), scale[3], filled[3 * GROUP] = {0};
        int8_t code[3 * GROUP];
        char *row = malloc((size_t)(INT8_ROW * groups));
        assert_non_null(x);
        assert_non_null(row);
        for (int64_t i = 0; i < n; i++)
            filled[i] = x[i] = number(i + n);
        for (int64_t g = 0; g < groups; g++)
            scale[g] = quantise(code + GROUP * g, filled + GROUP * g);
        amx_to_int8(row, x, n);
        expect_row(row, groups, code, scale);
        free(x);
        free(row);
    }
}

static void test_rows_of_codes(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 3 * GROUP; n++) {
        int64_t groups = (n + GROUP - 1) / GROUP;
        int8_t *src = malloc((size_t)n), code[3 * GROUP] = {0};
        char *row = malloc((size_t)(INT8_ROW * groups));
        assert_non_null(src);
        assert_non_null(row);
        for (int64_t i = 0; i < n; i++)
            code[i] = src[i] = code_of(i + n);
        amx_int8_from_codes(row, src, 0.3f, n);
        expect_row(row, groups, code, (const float[]){0.3f, 0.3f, 0.3f});
        free(src);
        free(row);
    }
}

static void test_rows_of_blocks(void **state) {
    enum { GROUPS = 3, BYTES = GROUP + 2 };
    (void)state;
    int8_t code[GROUPS * GROUP], *src = malloc(GROUPS * BYTES);
    float scale[GROUPS];
    char row[INT8_ROW * GROUPS];
    assert_non_null(src);
    for (int g = 0; g < GROUPS; g++) {
        uint16_t half = (uint16_t)(0x2c01 + 513 * g);
        scale[g] = wan_half_to_float(half);
        memcpy(src + BYTES * g, &half, sizeof half);
        for (int i = 0; i < GROUP; i++)
            src[BYTES * g + 2 + i] = code[GROUP * g + i] = code_of(GROUP * g + i);
    }
    amx_int8_from_q8_0(row, src, GROUPS);
    expect_row(row, GROUPS, code, scale);
    free(src);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_size),     cmocka_unit_test(test_depths),
        cmocka_unit_test(test_rows_of_floats), cmocka_unit_test(test_rows_of_codes),
        cmocka_unit_test(test_rows_of_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
