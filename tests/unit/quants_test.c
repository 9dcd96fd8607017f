/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fp8.h"
#include "tensor/quantise.h"
#include "tensor/quants.h"

static const dtype types[] = {
    WAN_Q8_0, WAN_Q4_0, WAN_Q4_1, WAN_Q5_0, WAN_Q5_1, WAN_IQ4_NL,  WAN_IQ4_XS,
    WAN_Q2_K, WAN_Q3_K, WAN_Q4_K, WAN_Q5_K, WAN_Q6_K, WAN_F8_E4M3, WAN_F8_E5M2,
};

enum { TYPES = sizeof types / sizeof *types };

/* A file of tests/data/quants; the caller frees it. */
static uint8_t *vectors(dtype t, const char *kind, size_t *n) {
    char path[512];
    snprintf(path, sizeof path, "%s/data/quants/%s.%s", WAN_TEST_DATA, wan_dtype(t)->name, kind);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    uint8_t *data = malloc(1 << 20);
    assert_non_null(data);
    *n = fread(data, 1, 1 << 20, f);
    fclose(f);
    return data;
}

/* Blocks that a file of `bytes` holds beside their elements as floats. */
static size_t blocks_in(dtype t, size_t bytes) {
    size_t each = (size_t)wan_dtype(t)->bytes + 4 * (size_t)wan_dtype(t)->block;
    assert_true(bytes > 0 && bytes % each == 0);
    return bytes / each;
}

/* Bit for bit, but for NaN, where any will do. */
static void expect_same(dtype t, const float *got, const float *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (wan_float_bits(got[i]) != wan_float_bits(want[i]) && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s: element %zu is %.9g, not %.9g", wan_dtype(t)->name, i, got[i], want[i]);
}

/* From every address modulo 4. */
static void decodes_as_gguf_py(void **state) {
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        size_t bytes, n = 0;
        uint8_t *data = vectors(types[i], "decode", &bytes);
        size_t blocks = blocks_in(types[i], bytes), stored = blocks * wan_dtype(types[i])->bytes;
        n = blocks * (size_t)wan_dtype(types[i])->block;
        float *want = malloc(4 * n), *got = malloc(4 * n);
        uint8_t *moved = malloc(stored + 4);
        memcpy(want, data + stored, 4 * n);
        for (int shift = 0; shift < 4; shift++) {
            memcpy(moved + shift, data, stored);
            wan_dequantise(types[i], got, moved + shift, (int64_t)n);
            expect_same(types[i], got, want, n);
        }
        free(moved);
        free(want);
        free(got);
        free(data);
    }
}

static void encodes_as_ggml(void **state) {
    (void)state;
    for (int i = 0; i < TYPES; i++) {
        size_t bytes;
        uint8_t *data = vectors(types[i], "encode", &bytes);
        size_t blocks = blocks_in(types[i], bytes), n = blocks * (size_t)wan_dtype(types[i])->block;
        size_t stored = blocks * (size_t)wan_dtype(types[i])->bytes;
        float *x = malloc(4 * n);
        uint8_t *got = malloc(stored + 1);
        memcpy(x, data, 4 * n);
        got[stored] = 77;
        error err = {0};
        assert_int_equal(wan_quantise(types[i], got, x, (int64_t)n, &err), WAN_OK);
        for (size_t b = 0; b < stored; b++)
            if (got[b] != data[4 * n + b])
                fail_msg("%s: byte %zu is %d, not %d", wan_dtype(types[i])->name, b, got[b],
                         data[4 * n + b]);
        assert_int_equal(got[stored], 77);
        free(got);
        free(x);
        free(data);
    }
}

/* Every finite code survives being read and written again. */
static void plain_types_round_trip(void **state) {
    (void)state;
    static const dtype plain[] = {WAN_F32, WAN_F16, WAN_BF16, WAN_F8_E4M3, WAN_F8_E5M2};
    for (int i = 0; i < 5; i++)
        for (uint32_t code = 0; code < 65536; code += i < 3 ? 1 : 256) {
            uint8_t stored[4] = {(uint8_t)(i < 3 ? code : code >> 8), (uint8_t)(code >> 8)};
            uint8_t again[4] = {0};
            if (i > 2)
                stored[1] = 0;
            float x;
            wan_dequantise(plain[i], &x, stored, 1);
            if (!isfinite(x))
                continue;
            assert_int_equal(wan_quantise(plain[i], again, &x, 1, NULL), WAN_OK);
            assert_memory_equal(stored, again, 4);
        }
}

static void whole_numbers(void **state) {
    (void)state;
    float got[2];
    int8_t stored[2] = {-128, 127};
    wan_dequantise(WAN_I8, got, stored, 2);
    assert_true(got[0] == -128 && got[1] == 127);
    uint8_t codes[2] = {0xa1, 255};
    wan_dequantise(WAN_MLX_8, got, codes, 2);
    assert_true(got[0] == 161 && got[1] == 255);
    wan_dequantise(WAN_MLX_4, got, codes, 2);
    assert_true(got[0] == 1 && got[1] == 10);
    double d[2] = {0.1, -3e300};
    wan_dequantise(WAN_F64, got, d, 2);
    assert_true(got[0] == 0.1f && got[1] == -INFINITY);
}

/* The casts themselves, past what a weight may be. */
static void fp8_beyond_its_range(void **state) {
    (void)state;
    static const struct {
        float x;
        uint8_t e4m3, e5m2;
    } row[] = {
        {448, 0x7e, 0x5f},         {464, 0x7e, 0x5f},       {464.0001f, 0x7f, 0x5f},
        {480, 0x7f, 0x60},         {-500, 0xff, 0xe0},      {57344, 0x7f, 0x7b},
        {61439, 0x7f, 0x7b},       {61440, 0x7f, 0x7c},     {INFINITY, 0x7f, 0x7c},
        {-INFINITY, 0xff, 0xfc},   {0x1p-9f, 0x01, 0x18},   {0x1p-10f, 0x00, 0x14},
        {0x1.8p-9f, 0x02, 0x1a},   {0x1p-16f, 0x00, 0x01},  {0x1p-17f, 0x00, 0x00},
        {-0x1.8p-16f, 0x80, 0x82}, {0x1.fp-7f, 0x08, 0x24}, {-0.0f, 0x80, 0x80},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        assert_int_equal(wan_f8_e4m3_from_float(row[i].x), row[i].e4m3);
        assert_int_equal(wan_f8_e5m2_from_float(row[i].x), row[i].e5m2);
    }
    assert_int_equal(wan_f8_e4m3_from_float(NAN) & 0x7f, 0x7f);
    assert_int_equal(wan_f8_e5m2_from_float(NAN) & 0x7f, 0x7f);
    assert_true(isnan(wan_f8_e4m3_to_float(0x7f)) && isnan(wan_f8_e4m3_to_float(0xff)));
}

static void only_finite_numbers_that_fit(void **state) {
    (void)state;
    static float x[512];
    static uint8_t out[2048];
    for (int i = 0; i < TYPES; i++) {
        error err = {0};
        for (int e = 0; e < 512; e++)
            x[e] = (float)(e % 7) - 3;
        x[300] = NAN;
        assert_int_equal(wan_quantise(types[i], out, x, 512, &err), WAN_E_FORMAT);
        assert_non_null(strstr(err.message, "element 300 is"));
        x[300] = -INFINITY;
        assert_int_equal(wan_quantise(types[i], out, x, 512, NULL), WAN_E_FORMAT);
        x[300] = -3e38f;
        wan_error_clear(&err);
        bool clamps = types[i] == WAN_F8_E4M3 || types[i] == WAN_F8_E5M2;
        assert_int_equal(wan_quantise(types[i], out, x, 512, &err), clamps ? WAN_OK : WAN_E_FORMAT);
        if (!clamps)
            assert_non_null(strstr(err.message, "element 300 is -3e+38, too large for"));
        x[300] = -1e13f;
        assert_int_equal(wan_quantise(types[i], out, x, 512, NULL), clamps ? WAN_OK : WAN_E_FORMAT);
    }
    assert_int_equal(wan_quantise(WAN_F16, out, &(float){65519}, 1, NULL), WAN_OK);
    assert_int_equal(wan_quantise(WAN_F16, out, &(float){65520}, 1, NULL), WAN_E_FORMAT);
    assert_int_equal(wan_quantise(WAN_BF16, out, &(float){3.4e38f}, 1, NULL), WAN_E_FORMAT);
}

/* The extremes become the ends of the type, and everything is within half a step. */
static void rows_have_their_own_scale(void **state) {
    (void)state;
    float x[3][5] = {{1, -2, 0.5f, 0, 1.5f}, {0, 0, 0, 0, 0}, {-300, 2e3f, 7, 1e-3f, 1e3f}};
    uint8_t q[15];
    float scale[3], back[15];
    assert_int_equal(wan_quantise_rows(WAN_I8, q, scale, x[0], 3, 5, NULL), WAN_OK);
    assert_true(scale[0] == 2.0f / 127 && scale[1] == 1e-5f / 127 && scale[2] == 2e3f / 127);
    wan_dequantise(WAN_I8, back, q, 15);
    for (int i = 0; i < 15; i++)
        assert_true(fabsf(back[i] * scale[i / 5] - x[i / 5][i % 5]) <= 0.50001f * scale[i / 5]);
    assert_true(back[1] == -127 && back[11] == 127);
    assert_int_equal(wan_quantise_rows(WAN_F8_E4M3, q, scale, x[0], 3, 5, NULL), WAN_OK);
    assert_true(scale[0] == 2.0f / 448);
    assert_int_equal(q[1], 0xfe);
    assert_int_equal(q[11], 0x7e);
    x[1][3] = NAN;
    error err = {0};
    assert_int_equal(wan_quantise_rows(WAN_I8, q, scale, x[0], 3, 5, &err), WAN_E_FORMAT);
    assert_non_null(strstr(err.message, "element 8 is"));
}

static void knows_its_types(void **state) {
    (void)state;
    static const uint8_t zeros[512];
    float got[256];
    for (int t = 0; t < WAN_DTYPES; t++) {
        const dtype_info *d = wan_dtype((dtype)t);
        assert_true(d->weight || !wan_can_quantise((dtype)t));
        if (!d->weight)
            continue;
        got[d->block - 1] = 1;
        wan_dequantise((dtype)t, got, zeros, d->block);
        assert_true(got[d->block - 1] == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_as_gguf_py),        cmocka_unit_test(encodes_as_ggml),
        cmocka_unit_test(plain_types_round_trip),    cmocka_unit_test(whole_numbers),
        cmocka_unit_test(fp8_beyond_its_range),      cmocka_unit_test(only_finite_numbers_that_fit),
        cmocka_unit_test(rows_have_their_own_scale), cmocka_unit_test(knows_its_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
