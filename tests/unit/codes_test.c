/* SPDX-License-Identifier: Apache-2.0 */
#include "weightfiles.h"

#include <math.h>

#include "weights/store.h"

static char folder[256];

static int setup(void **state) {
    (void)state;
    make_folder(folder);
    u8_text = NULL;
    more_metadata = "";
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

/* Of a transformer, so that the store takes them. */
#define P "blocks.0.self_attn."
#define W(TYPE, ...)                                                                               \
    { P "q.weight", WAN_##TYPE, __VA_ARGS__ }

static store *open_store(const spec *s, size_t n, error *err) {
    *err = (error){0};
    return wan_store_open(make_weights(folder, "w.safetensors", s, n), PART_DIT, err);
}

static store *open_ok(const spec *s, size_t n) {
    error err;
    store *st = open_store(s, n, &err);
    if (!st)
        fail_msg("%s", err.message);
    return st;
}

static void refuse(const spec *s, size_t n, wan_status code, const char *part_of_message) {
    error err;
    store *st = open_store(s, n, &err);
    assert_null(st);
    expect_error(&err, code, part_of_message);
}

/* Bytes 1, 2, 3 ... as E4M3 are 2^-9 times 1, 2, 3 ... 8, 9, ... 15, 16, 18, ...; I8 are
 * themselves. */
static void scales_of_rows(void **state) {
    (void)state;
    static const spec file[][2] = {
        {W(I8, 2, {2, 4}), {P "q.weight_scale", WAN_F32, 0, {0}}},
        {W(I8, 2, {2, 4}), {P "q.scale_weight", WAN_F16, 1, {1}}},
        {W(I8, 2, {2, 4}), {P "q.weight_scale", WAN_BF16, 2, {1, 1}}},
        {W(I8, 2, {2, 4}), {P "q.weight_scale", WAN_F32, 1, {2}}},
        {W(I8, 2, {2, 4}), {P "q.scale_weight", WAN_F64, 2, {2, 1}}},
        {W(F8_E4M3, 2, {2, 4}), {P "q.weight_scale", WAN_F32, 2, {2, 1}}},
    };
    for (size_t i = 0; i < COUNT(file); i++) {
        store *s = open_ok(file[i], 2);
        const stored *w = wan_store_at(s, 0), *scale = wan_store_at(s, 1);
        assert_ptr_equal(w->scale, scale);
        assert_null(w->offset);
        assert_true(scale->companion && !w->companion);
        float unit = i < 5 ? 1 : 0x1p-9f, got[8], some[3];
        wan_stored_read(w, got, 0, 8);
        for (int e = 0; e < 8; e++)
            assert_true(got[e] == unit * (float)(e + 1) * (i >= 3 && e >= 4 ? 2 : 1));
        wan_stored_read(w, some, 3, 3);
        assert_memory_equal(some, got + 3, sizeof some);
        wan_store_close(s);
    }
}

static void scales_that_do_not_fit(void **state) {
    (void)state;
    static const struct {
        spec s;
        wan_status code;
        const char *says;
    } bad[] = {
        {{P "q.weight_scale", WAN_F32, 1, {3}},
         WAN_E_SHAPE,
         "q.weight_scale is [3]: neither one scale nor one for each row of " P "q.weight, [2, 4]"},
        {{P "q.weight_scale", WAN_F32, 2, {1, 2}}, WAN_E_SHAPE, "is [1, 2]"},
        {{P "q.scale_weight", WAN_F32, 3, {2, 1, 1}}, WAN_E_SHAPE, "is [2, 1, 1]"},
        {{P "q.weight_scale", WAN_F32, 1, {0}}, WAN_E_SHAPE, "is [0]"},
        {{P "q.weight_scale", WAN_F8_E8M0, 2, {2, 1}}, WAN_E_TYPE, "q.weight_scale is F8_E8M0"},
        {{P "q.scale_weight", WAN_I32, 0, {0}}, WAN_E_TYPE, "q.scale_weight is I32"},
        {{P "q.weight_scale_2", WAN_F32, 0, {0}}, WAN_E_TYPE, "nvfp4"},
        {{P "q.weight_global_scale", WAN_F32, 0, {0}}, WAN_E_TYPE, "nvfp4"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        spec s[] = {W(F8_E4M3, 2, {2, 4}), bad[i].s};
        refuse(s, 2, bad[i].code, bad[i].says);
    }
    static const spec both[] = {W(F8_E4M3, 2, {2, 4}),
                                {P "q.weight_scale", WAN_F32, 0, {0}},
                                {P "q.scale_weight", WAN_F32, 0, {0}}};
    refuse(both, 3, WAN_E_FORMAT, "has two scales, " P "q.weight_scale and " P "q.scale_weight");
}

static void notes_are_no_weights(void **state) {
    (void)state;
    static const spec file[] = {W(F8_E4M3, 2, {2, 4}),
                                {P "q.scale_weight", WAN_F32, 0, {0}},
                                {P "q.scale_input", WAN_F32, 0, {0}},
                                {P "q.input_scale", WAN_F32, 0, {0}},
                                {"model.diffusion_model.scaled_fp8", WAN_F8_E4M3, 1, {2}}};
    store *s = open_ok(file, COUNT(file));
    for (size_t i = 0; i < COUNT(file); i++)
        assert_int_equal(wan_store_at(s, i)->companion, i > 0);
    wan_store_close(s);
}

/* ComfyUI says the format in a tensor of text, or in the metadata. */
static void formats(void **state) {
    (void)state;
    static const struct {
        const char *text;
        wan_status code;
        const char *says;
    } note[] = {
        {"{\"format\": \"float8_e4m3fn\"}", WAN_OK, NULL},
        {"{\"format\":\"int8_tensorwise\",\"convrot\":false}", WAN_OK, NULL},
        {"{\"format\":\"int8_tensorwise\",\"convrot\":true}", WAN_E_TYPE, "convrot"},
        {"{\"format\":\"nvfp4\"}", WAN_E_TYPE, "has the format nvfp4"},
        {"{\"format\":\"mxfp8\"}", WAN_E_TYPE, "has the format mxfp8"},
        {"{\"form\":\"at\"}", WAN_E_TYPE, "has the format (none)"},
        {"{\"format\":\"float8_e4m3fn\"", WAN_E_FORMAT, "comfy_quant"},
        {"[]", WAN_E_FORMAT, "comfy_quant"},
    };
    for (size_t i = 0; i < COUNT(note); i++) {
        spec s[] = {W(F8_E4M3, 2, {2, 4}), {P "q.comfy_quant", WAN_U8, 1, {0}}};
        u8_text = note[i].text;
        s[1].dim[0] = (int64_t)strlen(u8_text);
        if (note[i].code == WAN_OK)
            wan_store_close(open_ok(s, 2));
        else
            refuse(s, 2, note[i].code, note[i].says);
    }
    static const spec alone[] = {W(F8_E4M3, 2, {2, 4})},
                      other[] = {W(F8_E4M3, 2, {2, 4}), {P "q.comfy_quant", WAN_I8, 1, {2}}};
    u8_text = NULL;
    refuse(other, 2, WAN_E_TYPE, "q.comfy_quant is I8, not U8");
#define META(JSON) ",\"_quantization_metadata\":\"" JSON "\""
#define LAYER(F) "{\\\"layers\\\":{\\\"a.b\\\":{\\\"format\\\":\\\"" F "\\\"}}}"
    more_metadata = META(LAYER("float8_e5m2"));
    wan_store_close(open_ok(alone, 1));
    more_metadata = META(LAYER("nvfp4"));
    refuse(alone, 1, WAN_E_TYPE, "a.b has the format nvfp4");
    more_metadata = META("{");
    refuse(alone, 1, WAN_E_FORMAT, "_quantization_metadata");
}

/* U32 words 1, 2, 3 ...: of four codes the first is the word, the others are 0. */
static void mlx_codes(void **state) {
    (void)state;
    static const struct {
        int64_t words, groups;
        const char *level;
        dtype type;
        int64_t columns;
    } row[] = {
        {32, 2, NULL, WAN_MLX_8, 128}, {16, 2, NULL, WAN_MLX_4, 128},
        {16, 2, "8", WAN_MLX_8, 64}, /* groups of 32 */
        {32, 2, "4", WAN_MLX_4, 256},  {16, 2, "None", WAN_MLX_4, 128},
        {16, 1, "7", WAN_MLX_8, 64},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        char level[64];
        spec s[] = {W(U32, 2, {3, row[i].words}),
                    {P "q.scales", WAN_BF16, 2, {3, row[i].groups}},
                    {P "q.biases", WAN_BF16, 2, {3, row[i].groups}}};
        snprintf(level, sizeof level, ",\"quantization_level\":\"%s\"", row[i].level);
        more_metadata = row[i].level ? level : "";
        store *st = open_ok(s, 3);
        const stored *w = wan_store_at(st, 0);
        assert_int_equal(w->t.type, row[i].type);
        assert_int_equal(w->t.dim[0], 3);
        assert_int_equal(w->t.dim[1], row[i].columns);
        assert_string_equal(w->scale->source, P "q.scales");
        assert_string_equal(w->offset->source, P "q.biases");
        assert_true(w->scale->companion && w->offset->companion);
        static float got[3 * 256];
        int64_t n = 3 * row[i].columns, group = row[i].columns / row[i].groups;
        int per_word = row[i].type == WAN_MLX_8 ? 4 : 8;
        wan_stored_read(w, got, 0, n);
        for (int64_t e = 0; e < n; e++) {
            int bits = 32 / per_word;
            int64_t code = (e / per_word + 1) >> (e % per_word * bits) & ((1 << bits) - 1);
            float g = (float)(e / group + 1); /* scale and offset alike */
            assert_true(got[e] == (float)code * g + g);
        }
        wan_store_close(st);
    }
}

static void mlx_that_does_not_fit(void **state) {
    (void)state;
    static const struct {
        spec s[3];
        size_t n;
        wan_status code;
        const char *says;
    } bad[] = {
        {{W(U32, 2, {2, 16}), {P "q.scales", WAN_BF16, 2, {2, 1}}},
         2,
         WAN_E_FORMAT,
         "it has no biases"},
        {{W(U32, 2, {2, 16}), {P "q.biases", WAN_BF16, 2, {2, 1}}},
         2,
         WAN_E_FORMAT,
         "it has no scales"},
#define ALL(W, S, B) {W, {P "q.scales", S}, {P "q.biases", B}}, 3
#define T(...) __VA_ARGS__
        {ALL(W(U8, 2, {2, 16}), T(WAN_BF16, 2, {2, 1}), T(WAN_BF16, 2, {2, 1})), WAN_E_FORMAT,
         "its codes are not a U32 matrix"},
        {ALL(W(U32, 1, {16}), T(WAN_BF16, 2, {2, 1}), T(WAN_BF16, 2, {2, 1})), WAN_E_FORMAT,
         "its codes are not a U32 matrix"},
        {ALL(W(U32, 2, {2, 16}), T(WAN_BF16, 2, {2, 1}), T(WAN_F16, 2, {2, 1})), WAN_E_TYPE,
         "are BF16 and F16"},
        {ALL(W(U32, 2, {2, 16}), T(WAN_BF16, 2, {3, 1}), T(WAN_BF16, 2, {3, 1})), WAN_E_SHAPE,
         "q.scales is [3, 1] and its biases [3, 1], for 2 rows"},
        {ALL(W(U32, 2, {2, 16}), T(WAN_BF16, 2, {2, 1}), T(WAN_BF16, 2, {2, 2})), WAN_E_SHAPE,
         "its biases [2, 2]"},
        {ALL(W(U32, 2, {2, 16}), T(WAN_BF16, 2, {2, 0}), T(WAN_BF16, 2, {2, 0})), WAN_E_SHAPE,
         "is [2, 0]"},
        {ALL(W(U32, 2, {0, 16}), T(WAN_BF16, 2, {0, 1}), T(WAN_BF16, 2, {0, 1})), WAN_E_SHAPE,
         "is [0, 16], not a matrix of codes"},
        {ALL(W(U32, 2, {2, 12}), T(WAN_BF16, 2, {2, 2}), T(WAN_BF16, 2, {2, 2})), WAN_E_TYPE,
         "has 12 words and 2 groups in a row"}, /* 3 bits */
        {ALL(W(U32, 2, {2, 16}), T(WAN_BF16, 2, {2, 3}), T(WAN_BF16, 2, {2, 3})), WAN_E_TYPE,
         "16 words and 3 groups"},
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        refuse(bad[i].s, bad[i].n, bad[i].code, bad[i].says);
}

/* [out, kt, kh, kw, in] is shown as everybody else's and read in that order. */
static void mlx_kernels(void **state) {
    (void)state;
    static const spec file[] = {{"blocks.0.attn1.to_q.weight", WAN_F32, 2, {2, 3}},
                                {"blocks.0.ffn.net.0.weight", WAN_F32, 2, {2, 3}},
                                {"blocks.0.ffn.net.1.weight", WAN_F32, 2, {3, 2}},
                                {"patch_embedding.weight", WAN_F16, 5, {2, 1, 2, 2, 3}}};
    store *s = open_ok(file, COUNT(file));
    assert_string_equal(wan_store_layout(s), "mlx");
    assert_non_null(wan_store_find(s, "blocks.0.ffn.0.weight"));
    assert_non_null(wan_store_find(s, "blocks.0.ffn.2.weight"));
    assert_false(wan_store_find(s, "blocks.0.ffn.0.weight")->channels_last);
    const stored *w = wan_store_find(s, "patch_embedding.weight");
    assert_true(w->channels_last);
    char shape[64];
    assert_string_equal(wan_shape_text(w->t, shape, sizeof shape), "[2, 3, 1, 2, 2]");
    float got[24], some[5];
    wan_stored_read(w, got, 0, 24);
    for (int o = 0; o < 2; o++)
        for (int c = 0; c < 3; c++)
            for (int tap = 0; tap < 4; tap++)
                assert_true(got[o * 12 + c * 4 + tap] == (float)(o * 12 + tap * 3 + c + 1));
    wan_stored_read(w, some, 9, 5);
    assert_memory_equal(some, got + 9, sizeof some);
    wan_store_close(s);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(scales_of_rows),
        TEST(scales_that_do_not_fit),
        TEST(notes_are_no_weights),
        TEST(formats),
        TEST(mlx_codes),
        TEST(mlx_that_does_not_fit),
        TEST(mlx_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
