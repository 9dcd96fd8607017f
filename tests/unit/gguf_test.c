/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "io/gguf.h"

/* A file in the making: counts are patched in at the end. */
typedef struct maker {
    bytes b;
    uint64_t tensors, metas;
} maker;

static void begin(maker *m, uint32_t version) {
    m->b.n = 0;
    m->tensors = m->metas = 0;
    put(&m->b, "GGUF", 4);
    put_number(&m->b, version, 4);
    put_number(&m->b, 0, 8);
    put_number(&m->b, 0, 8);
}

static void meta(maker *m, const char *key, gguf_type type) {
    put_string(&m->b, key);
    put_number(&m->b, type, 4);
    m->metas++;
}

static void meta_array(maker *m, const char *key, gguf_type type, uint64_t count) {
    meta(m, key, GGUF_ARRAY);
    put_number(&m->b, type, 4);
    put_number(&m->b, count, 8);
}

/* Dimensions as in the file: fastest first. */
static void add_tensor(maker *m, const char *name, int rank, const uint64_t *ne, uint32_t type,
                       uint64_t offset) {
    put_string(&m->b, name);
    put_number(&m->b, (uint64_t)rank, 4);
    for (int i = 0; i < rank; i++)
        put_number(&m->b, ne[i], 8);
    put_number(&m->b, type, 4);
    put_number(&m->b, offset, 8);
    m->tensors++;
}

static void data(maker *m, size_t align, size_t n) {
    while (m->b.n % align)
        put(&m->b, "", 1);
    for (size_t i = 0; i < n; i++)
        put(&m->b, &(uint8_t){(uint8_t)(i + 1)}, 1);
}

static gguf *finish(maker *m, error *err) {
    bytes counts = {.n = 0};
    put_number(&counts, m->tensors, 8);
    put_number(&counts, m->metas, 8);
    memcpy(m->b.at + 8, counts.at, 16);
    *err = (error){0};
    return wan_gguf_open_bytes(m->b.at, m->b.n, "test", err);
}

#define NE(...)                                                                                    \
    (int)(sizeof((uint64_t[]){__VA_ARGS__}) / 8), (uint64_t[]) {                                   \
        __VA_ARGS__                                                                                \
    }

static void make_good(maker *m) {
    begin(m, 3);
    meta(m, "general.architecture", GGUF_STRING);
    put_string(&m->b, "wan");
    meta(m, "n", GGUF_U32);
    put_number(&m->b, 7, 4);
    meta(m, "minus", GGUF_I16);
    put_number(&m->b, 0xfffe, 2);
    meta(m, "yes", GGUF_BOOL);
    put_number(&m->b, 1, 1);
    meta(m, "pi", GGUF_F32);
    put_number(&m->b, 0x40490fdb, 4);
    meta_array(m, "tokens", GGUF_STRING, 3);
    put_string(&m->b, "<pad>");
    put_string(&m->b, "");
    put_string(&m->b, "\xe2\x96\x81"
                      "a");
    meta_array(m, "scores", GGUF_F64, 2);
    put_number(&m->b, 0x3ff0000000000000, 8);
    put_number(&m->b, 0xc000000000000000, 8);
    add_tensor(m, "patch.weight", NE(2, 2, 1, 3, 4), 0, 0);
    add_tensor(m, "q.weight", NE(32, 2), 8, 192);
    add_tensor(m, "scalar", 0, NULL, 1, 288);
    data(m, 32, 290);
}

static void good_file(void **state) {
    (void)state;
    static maker m;
    error err;
    make_good(&m);
    gguf *g = finish(&m, &err);
    if (!g)
        fail_msg("%s", err.message);
    assert_int_equal(wan_gguf_count(g), 3);
    assert_string_equal(wan_gguf_at(g, 0)->name, "patch.weight");
    tensor t = wan_gguf_find(g, "patch.weight")->t;
    assert_int_equal(t.rank, 5);
    assert_memory_equal(t.dim, ((int64_t[]){4, 3, 1, 2, 2}), 5 * sizeof(int64_t));
    assert_int_equal(*(const uint8_t *)t.data, 1);
    t = wan_gguf_find(g, "q.weight")->t;
    assert_int_equal(t.type, WAN_Q8_0);
    assert_int_equal(t.dim[0], 2);
    assert_int_equal(t.dim[1], 32);
    assert_int_equal(*(const uint8_t *)t.data, 193);
    assert_int_equal(wan_gguf_find(g, "scalar")->t.rank, 0);
    assert_null(wan_gguf_find(g, "q"));
    assert_null(wan_gguf_at(g, 3));
    wan_gguf_close(g);
}

static void metadata(void **state) {
    (void)state;
    static maker m;
    error err;
    make_good(&m);
    gguf *g = finish(&m, &err);
    assert_non_null(g);
    assert_int_equal(wan_gguf_meta_count(g), 7);
    assert_null(wan_gguf_meta_at(g, 7));
    assert_string_equal(wan_gguf_meta_at(g, 1)->key, "n");
    int64_t i = 0;
    double d = 0;
    assert_true(wan_gguf_integer(wan_gguf_meta(g, "n"), 0, &i) && i == 7);
    assert_true(wan_gguf_integer(wan_gguf_meta(g, "minus"), 0, &i) && i == -2);
    assert_true(wan_gguf_number(wan_gguf_meta(g, "minus"), 0, &d) && d == -2);
    assert_true(wan_gguf_integer(wan_gguf_meta(g, "yes"), 0, &i) && i == 1);
    assert_true(wan_gguf_number(wan_gguf_meta(g, "pi"), 0, &d) && d > 3.14159 && d < 3.1416);
    assert_false(wan_gguf_integer(wan_gguf_meta(g, "pi"), 0, &i));
    assert_false(wan_gguf_integer(wan_gguf_meta(g, "n"), 1, &i));
    const gguf_value *v = wan_gguf_meta(g, "scores");
    assert_true(v->array && v->type == GGUF_F64 && v->count == 2);
    assert_true(wan_gguf_number(v, 1, &d) && d == -2);
    assert_true(wan_gguf_integer(v, 0, &i) && i == 1);
    v = wan_gguf_meta(g, "tokens");
    assert_true(v->array && v->type == GGUF_STRING && v->count == 3);
    assert_false(wan_gguf_number(v, 0, &d));
    const uint8_t *at = v->at;
    size_t n;
    const char *text = wan_gguf_next_string(&at, &n);
    assert_true(n == 5 && !memcmp(text, "<pad>", 5));
    wan_gguf_next_string(&at, &n);
    assert_int_equal(n, 0);
    text = wan_gguf_next_string(&at, &n);
    assert_true(n == 4 && text[3] == 'a');
    assert_null(wan_gguf_meta(g, "absent"));
    assert_string_equal(wan_gguf_type_name(GGUF_STRING), "string");
    wan_gguf_close(g);
}

static void truncated_anywhere(void **state) {
    (void)state;
    static maker m;
    error err;
    make_good(&m);
    wan_gguf_close(finish(&m, &err));
    for (size_t n = 0; n < m.b.n; n++) {
        uint8_t *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, m.b.at, n);
        err = (error){0};
        assert_null(wan_gguf_open_bytes(copy, n, "test", &err));
        assert_int_equal(err.code, WAN_E_FORMAT);
        free(copy);
    }
}

static void expect_refused(maker *m, const char *part) {
    error err;
    assert_null(finish(m, &err));
    expect_error(&err, WAN_E_FORMAT, part);
    assert_non_null(strstr(err.message, "test: "));
}

static void heads(void **state) {
    (void)state;
    static maker m;
    error err;
    begin(&m, 2);
    gguf *g = finish(&m, &err);
    assert_non_null(g);
    wan_gguf_close(g);
    begin(&m, 1);
    expect_refused(&m, "version 1,");
    begin(&m, 4);
    expect_refused(&m, "version 4,");
    begin(&m, 0x03000000);
    expect_refused(&m, "big-endian");
    begin(&m, 3);
    m.b.at[0] = 'g';
    expect_refused(&m, "not a GGUF file");
}

static void hostile_counts(void **state) {
    (void)state;
    static maker m;
    static const uint64_t many[] = {1, 1000, 1ull << 32, 1ull << 61, UINT64_MAX - 20};
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
        begin(&m, 3);
        m.metas = many[i];
        expect_refused(&m, "metadata entries");
        begin(&m, 3);
        m.tensors = many[i];
        expect_refused(&m, "tensors");
        begin(&m, 3);
        meta_array(&m, "numbers", GGUF_U64, many[i]);
        expect_refused(&m, "numbers has");
        begin(&m, 3);
        meta_array(&m, "strings", GGUF_STRING, many[i]);
        expect_refused(&m, "strings has");
        begin(&m, 3);
        put_number(&m.b, many[i] + 20, 8);
        put(&m.b, "            ", 12);
        m.metas = 1;
        expect_refused(&m, "metadata key");
        begin(&m, 3);
        meta(&m, "text", GGUF_STRING);
        put_number(&m.b, many[i], 8);
        expect_refused(&m, "text");
    }
}

static void bad_metadata(void **state) {
    (void)state;
    static maker m;
    begin(&m, 3);
    meta(&m, "odd", (gguf_type)13);
    expect_refused(&m, "odd is of the unknown type 13");
    begin(&m, 3);
    meta_array(&m, "deep", GGUF_ARRAY, 1);
    expect_refused(&m, "deep is an array of arrays");
    begin(&m, 3);
    meta_array(&m, "odd", (gguf_type)99, 1);
    expect_refused(&m, "odd is of the unknown type 99");
    begin(&m, 3);
    meta(&m, "flag", GGUF_BOOL);
    put_number(&m.b, 2, 1);
    expect_refused(&m, "flag is a bool of 2");
    for (int i = 0; i < 2; i++) {
        if (!i)
            begin(&m, 3);
        meta(&m, "twin", GGUF_U8);
        put_number(&m.b, 0, 1);
    }
    expect_refused(&m, "twin occurs twice");
    begin(&m, 3);
    meta(&m, "", GGUF_U64);
    put_number(&m.b, 0, 8);
    expect_refused(&m, "has 0 bytes");
    begin(&m, 3);
    meta(&m, "bad\xff", GGUF_U64);
    put_number(&m.b, 0, 8);
    expect_refused(&m, "not text");
}

static void alignment(void **state) {
    (void)state;
    static maker m;
    error err;
    static const uint64_t bad[] = {0, 3, 48, 131072, 0x80000000};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        begin(&m, 3);
        meta(&m, "general.alignment", GGUF_U32);
        put_number(&m.b, bad[i], 4);
        expect_refused(&m, "power of two");
    }
    begin(&m, 3);
    meta(&m, "general.alignment", GGUF_U64);
    put_number(&m.b, 32, 8);
    expect_refused(&m, "must be u32");
    begin(&m, 3);
    meta_array(&m, "general.alignment", GGUF_U32, 1);
    put_number(&m.b, 32, 4);
    expect_refused(&m, "an array of u32");
    for (uint64_t a = 1; a <= 256; a *= 16) {
        begin(&m, 3);
        meta(&m, "general.alignment", GGUF_U32);
        put_number(&m.b, a, 4);
        add_tensor(&m, "a", NE(1), 24, 0);
        add_tensor(&m, "b", NE(1), 24, a);
        data(&m, a, a + 1);
        gguf *g = finish(&m, &err);
        if (!g)
            fail_msg("%s", err.message);
        assert_int_equal(*(const uint8_t *)wan_gguf_at(g, 1)->t.data, (uint8_t)(a + 1));
        wan_gguf_close(g);
    }
}

static void one_tensor(maker *m, const char *name, int rank, const uint64_t *ne, uint32_t type,
                       uint64_t offset) {
    begin(m, 3);
    add_tensor(m, name, rank, ne, type, offset);
    data(m, 32, 64);
}

static void expect_unknown_type(maker *m, const char *part) {
    error err;
    assert_null(finish(m, &err));
    expect_error(&err, WAN_E_TYPE, part);
}

static void bad_tensors(void **state) {
    (void)state;
    static maker m;
    one_tensor(&m, "w", NE(1), 43, 0);
    expect_unknown_type(&m, "test: w is of the unknown type 43");
    static const uint32_t gone[] = {4, 5, 31, 32, 33, 36, 37, 38, 255, 0xffffffff};
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        one_tensor(&m, "w", NE(256), gone[i], 0);
        expect_unknown_type(&m, "unknown type");
    }
    one_tensor(&m, "w", NE(0), 0, 0);
    expect_refused(&m, "axis 0 of w has the length 0");
    one_tensor(&m, "w", NE(1, UINT64_MAX), 0, 0);
    expect_refused(&m, "axis 1 of w has the length 18446744073709551615");
    one_tensor(&m, "w", NE(1ull << 32, 1ull << 32), 0, 0);
    expect_refused(&m, "63 bits");
    one_tensor(&m, "w", NE(1ull << 61), 0, 0);
    expect_refused(&m, "63 bits");
    one_tensor(&m, "w", NE(1, 1, 1, 1, 1, 1, 1, 1, 1), 0, 0);
    expect_refused(&m, "9 axes");
    one_tensor(&m, "w", NE(2, 2, 2, 1, 2, 2, 2), 24, 0);
    expect_refused(&m, "7 axes");
    one_tensor(&m, "w", NE(33), 8, 0);
    expect_refused(&m, "33 elements, Q8_0 stores 32");
    one_tensor(&m, "w", NE(16, 2), 8, 0);
    expect_refused(&m, "rows of 16, Q8_0 stores 32");
    one_tensor(&m, "w", NE(1), 0, 8);
    expect_refused(&m, "byte 8, not a multiple of 32");
    one_tensor(&m, "w", NE(17), 0, 0);
    expect_refused(&m, "w has 68 bytes from byte 0 of the data, the file has 64");
    one_tensor(&m, "w", NE(1), 0, UINT64_MAX - 31);
    expect_refused(&m, "from byte 18446744073709551584");
    one_tensor(&m, "w", NE(1), 0, 64);
    expect_refused(&m, "from byte 64");
    begin(&m, 3);
    add_tensor(&m, "a", NE(16), 0, 0);
    add_tensor(&m, "b", NE(1), 0, 32);
    data(&m, 32, 64);
    expect_refused(&m, "a and b lie on the same bytes");
    begin(&m, 3);
    add_tensor(&m, "a", NE(1), 0, 0);
    add_tensor(&m, "a", NE(1), 0, 32);
    data(&m, 32, 64);
    expect_refused(&m, "a occurs twice");
}

static void names(void **state) {
    (void)state;
    static maker m;
    error err;
    char name[129] = {0};
    memset(name, 'x', 127);
    one_tensor(&m, name, NE(1), 0, 0);
    gguf *g = finish(&m, &err);
    assert_non_null(g);
    assert_non_null(wan_gguf_find(g, name));
    wan_gguf_close(g);
    name[127] = 'x';
    one_tensor(&m, name, NE(1), 0, 0);
    expect_refused(&m, "has 128 bytes, 1 to 127");
    one_tensor(&m, "", NE(1), 0, 0);
    expect_refused(&m, "has 0 bytes");
    one_tensor(&m, "a\nb", NE(1), 0, 0);
    expect_refused(&m, "not text");
}

/* Every type of ggml by its number: name and size as in formats.md 4.1. */
static void all_types(void **state) {
    (void)state;
    static maker m;
    static const struct {
        uint32_t id;
        const char *name;
        uint64_t elements;
        size_t bytes;
    } type[] = {
        {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
        {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
        {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
        {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
        {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
        {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
        {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
        {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
        {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
        {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
        {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},
        {41, "Q1_0", 128, 18},
    };
    for (size_t i = 0; i < sizeof type / sizeof type[0]; i++) {
        error err;
        begin(&m, 3);
        add_tensor(&m, "w", NE(type[i].elements, 3), type[i].id, 0);
        data(&m, 32, 3 * type[i].bytes);
        gguf *g = finish(&m, &err);
        if (!g)
            fail_msg("%s: %s", type[i].name, err.message);
        tensor t = wan_gguf_at(g, 0)->t;
        assert_string_equal(wan_dtype(t.type)->name, type[i].name);
        assert_int_equal(wan_bytes(t), 3 * type[i].bytes);
        wan_gguf_close(g);
        begin(&m, 3);
        add_tensor(&m, "w", NE(type[i].elements, 3), type[i].id, 0);
        data(&m, 32, 3 * type[i].bytes - 1);
        expect_refused(&m, "truncated");
    }
}

static void shaped(maker *m, gguf_type type, uint64_t count, const int64_t *dim, uint32_t as) {
    begin(m, 3);
    meta_array(m, "comfy.gguf.orig_shape.w", type, count);
    for (uint64_t i = 0; i < count; i++)
        put_number(&m->b, (uint64_t)dim[i], type == GGUF_I64 ? 8 : 4);
    add_tensor(m, "w", NE(32, 3), as, 0);
    data(m, 32, 384);
}

static void original_shape(void **state) {
    (void)state;
    static maker m;
    error err;
    static const gguf_type kind[] = {GGUF_I32, GGUF_I64};
    for (int i = 0; i < 2; i++) {
        shaped(&m, kind[i], 5, (int64_t[]){3, 2, 1, 4, 4}, 0);
        gguf *g = finish(&m, &err);
        if (!g)
            fail_msg("%s", err.message);
        assert_memory_equal(wan_gguf_at(g, 0)->t.dim, ((int64_t[]){3, 2, 1, 4, 4}), 40);
        wan_gguf_close(g);
    }
    shaped(&m, GGUF_I32, 2, (int64_t[]){3, 31}, 0);
    expect_refused(&m, "does not fit the tensor: 93 elements, stored are 96");
    shaped(&m, GGUF_I32, 2, (int64_t[]){-3, -32}, 0);
    expect_refused(&m, "does not fit");
    shaped(&m, GGUF_I32, 0, NULL, 0);
    expect_refused(&m, "does not fit");
    shaped(&m, GGUF_I32, 9, (int64_t[]){3, 32, 1, 1, 1, 1, 1, 1, 1}, 0);
    expect_refused(&m, "does not fit");
    shaped(&m, GGUF_I32, 2, (int64_t[]){6, 16}, 8);
    expect_refused(&m, "rows of 16, Q8_0");
}

static void from_disk(void **state) {
    (void)state;
    static maker m;
    char folder[256];
    error err;
    make_folder(folder);
    make_good(&m);
    wan_gguf_close(finish(&m, &err));
    const char *path = make_file(folder, "a.gguf", m.b.at, m.b.n);
    gguf *g = wan_gguf_open(path, &err);
    assert_non_null(g);
    wan_gguf_drop_pages(g);
    assert_int_equal(*(const uint8_t *)wan_gguf_at(g, 0)->t.data, 1);
    wan_gguf_close(g);
    wan_gguf_close(NULL);
    assert_null(wan_gguf_open(folder, &err));
    expect_error(&err, WAN_E_IO, "folder");
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_file),
        cmocka_unit_test(metadata),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(heads),
        cmocka_unit_test(hostile_counts),
        cmocka_unit_test(bad_metadata),
        cmocka_unit_test(alignment),
        cmocka_unit_test(bad_tensors),
        cmocka_unit_test(names),
        cmocka_unit_test(all_types),
        cmocka_unit_test(original_shape),
        cmocka_unit_test(from_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
