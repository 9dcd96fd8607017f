/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "io/safetensors.h"

static safetensors *open_header(const char *header, size_t data, error *err) {
    static bytes b;
    b.n = 0;
    put_safetensors(&b, header, data);
    *err = (error){0};
    return wan_safetensors_open_bytes(b.at, b.n, "test", err);
}

#define T(name, dtype, shape, from, to)                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to   \
    "]}"

static void good_files(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data, count;
    } good[] = {
        {"{}", 0, 0},
        {"{" T("a", "F32", "[2,3]", 0, 24) "}", 24, 1},
        {" \n{" T("a", "F32", "[]", 0, 4) "}\t\r\n ", 4, 1},
        {"{" T("b", "U8", "[3]", 4, 7) "," T("a", "F32", "[1]", 0, 4) "}", 7, 2},
        {"{" T("a", "F32", "[0,5]", 0, 0) "," T("b", "F16", "[1]", 0, 2) "}", 2, 2},
        {"{" T("b", "F16", "[1]", 0, 2) "," T("a", "F32", "[0]", 2, 2) "}", 2, 2},
        {"{\"__metadata__\":null," T("a", "I64", "[1]", 0, 8) "}", 8, 1},
        {"{\"__metadata__\":{\"k\":\"v\"}}", 0, 0},
        {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":{\"x\":[1]}}}",
         1, 1},
        {"{" T("a", "F4", "[3,2]", 0, 3) "}", 3, 1},
        {"{" T("a", "F6_E2M3", "[4]", 0, 3) "}", 3, 1},
        {"{" T("a", "F8_E8M0", "[3]", 0, 3) "}", 3, 1},
        {"{" T("a", "U8", "[1,1,2,1,3,1,1]", 0, 6) "}", 6, 1},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        error err;
        safetensors *s = open_header(good[i].header, good[i].data, &err);
        if (!s)
            fail_msg("%s: %s", good[i].header, err.message);
        assert_int_equal(wan_safetensors_count(s), good[i].count);
        wan_safetensors_close(s);
    }
}

static void what_is_inside(void **state) {
    (void)state;
    error err;
    safetensors *s =
        open_header("{\"__metadata__\":{\"k\":\"v\",\"format\":\"pt\"}," T(
                        "late", "U8", "[1,2]", 4, 6) "," T("first", "F32", "[]", 0, 4) "}",
                    6, &err);
    assert_non_null(s);
    assert_string_equal(wan_safetensors_at(s, 0)->name, "first");
    assert_int_equal(wan_safetensors_at(s, 0)->t.rank, 0);
    assert_null(wan_safetensors_at(s, 2));
    const named_tensor *n = wan_safetensors_find(s, "late");
    assert_non_null(n);
    assert_int_equal(n->t.type, WAN_U8);
    assert_int_equal(n->t.dim[1], 2);
    assert_memory_equal(n->t.data, "\5\6", 2);
    assert_null(wan_safetensors_find(s, "lat"));
    assert_string_equal(wan_safetensors_meta(s, "format"), "pt");
    assert_null(wan_safetensors_meta(s, "formal"));
    assert_int_equal(wan_safetensors_meta_count(s), 2);
    assert_string_equal(wan_safetensors_meta_key(s, 0), "k");
    assert_null(wan_safetensors_meta_key(s, 2));
    wan_safetensors_close(s);
}

static void axes_of_one_go(void **state) {
    (void)state;
    error err;
    safetensors *s = open_header("{" T("a", "U8", "[1,1,2,1,3,1]", 0, 6) "}", 6, &err);
    assert_non_null(s);
    tensor t = wan_safetensors_at(s, 0)->t;
    assert_int_equal(t.rank, 5);
    assert_memory_equal(t.dim, ((int64_t[]){1, 2, 1, 3, 1}), 5 * sizeof(int64_t));
    wan_safetensors_close(s);
}

static void lying_headers(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *part;
    } bad[] = {
        {"", 0, "JSON"},
        {"[]", 0, "not a JSON object"},
        {"{", 0, "JSON"},
        {"{}x", 0, "JSON"},
        {"x{}", 0, "JSON"},
        {"{\"a\":1}", 0, "object"},
        {"{\"a\":{}}", 0, "no dtype"},
        {"{" T("", "F32", "[]", 0, 4) "}", 4, "empty"},
        {"{" T("a\\u0000b", "F32", "[]", 0, 4) "}", 4, "JSON"},
        {"{" T("a\\u0001b", "F32", "[]", 0, 4) "}", 4, "not text"},
        {"{" T("a\xff", "F32", "[]", 0, 4) "}", 4, "JSON"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "no shape"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "data_offsets"},
        {"{" T("a", "U8", "[-1]", 0, 1) "}", 1, "axis 0 of a"},
        {"{" T("a", "U8", "[1.0]", 0, 1) "}", 1, "axis 0 of a"},
        {"{" T("a", "U8", "[1e0]", 0, 1) "}", 1, "axis 0 of a"},
        {"{" T("a", "U8", "[\"1\"]", 0, 1) "}", 1, "axis 0 of a"},
        {"{" T("a", "U8", "1", 0, 1) "}", 1, "no shape"},
        {"{" T("a", "U8", "[99999999999999999999]", 0, 1) "}", 1, "JSON"},
        {"{" T("a", "U8", "[4294967296,4294967296]", 0, 1) "}", 1, "63 bits"},
        {"{" T("a", "F64", "[2305843009213693952]", 0, 0) "}", 0, "63 bits"},
        {"{" T("a", "U8", "[3]", 0, 2) "}", 2,
         "a has 2 bytes in the file, its type and shape need 3"},
        {"{" T("a", "F32", "[1]", 0, 2) "}", 2, "2 bytes in the file"},
        {"{" T("a", "U8", "[2]", -1, 1) "}", 2, "no range"},
        {"{" T("a", "U8", "[2]", 2, 0) "}", 2, "no range"},
        {"{" T("a", "U8", "[2]", 0.0, 2) "}", 2, "data_offsets"},
        {"{" T("a", "U8", "[4]", 0, 4) "}", 3,
         "ends at byte 4 of the data, but the file has only 3"},
        {"{" T("a", "U8", "[2]", 9223372036854775805, 9223372036854775807) "}", 3, "ends at byte"},
        {"{" T("a", "U8", "[2]", 1, 3) "}", 3, "begins at byte 1"},
        {"{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 1, 3) "}", 3, "begins at byte 1"},
        {"{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 0, 2) "}", 2, "begins at byte 0"},
        {"{" T("a", "U8", "[1]", 0, 1) "," T("b", "U8", "[1]", 2, 3) "}", 3, "begins at byte 2"},
        {"{" T("a", "U8", "[2]", 0, 2) "}", 3, "end at byte 2 of the data, the file at 3"},
        {"{}", 1, "end at byte 0"},
        {"{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 0, 1) "}", 1, "JSON"},
        {"{" T("a", "F4", "[3]", 0, 2) "}", 2, "3 elements, F4 stores 2"},
        {"{" T("wide", "U8", "[2,1,2,2,2,2,2]", 0, 64) "}", 64, "wide has 7 axes"},
        {"{" T("wide", "U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1,
         "wide has 17 axes"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "metadata k"},
        {"{\"a\":{\"x\":[[[[[[[[1]]]]]]]]}}", 0, "nested 10 deep"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error err;
        safetensors *s = open_header(bad[i].header, bad[i].data, &err);
        if (s)
            fail_msg("%s was accepted", bad[i].header);
        expect_error(&err, WAN_E_FORMAT, bad[i].part);
        assert_non_null(strstr(err.message, "test: "));
    }
}

static void unknown_type(void **state) {
    (void)state;
    error err;
    assert_null(open_header("{" T("a", "F31", "[]", 0, 4) "}", 4, &err));
    expect_error(&err, WAN_E_TYPE, "test: a is of the unknown type F31");
}

static void lying_lengths(void **state) {
    (void)state;
    static const struct {
        uint64_t length;
        const char *part;
    } bad[] = {{3, "has 3 bytes, but only 2 follow"},
               {32 << 20, "has 33554432 bytes, but only 2"},
               {(32 << 20) + 1, "would have 33554433 bytes"},
               {UINT64_MAX, "would have 18446744073709551615"},
               {1, "JSON"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bytes b = {.n = 0};
        error err = {0};
        put_number(&b, bad[i].length, 8);
        put(&b, "{}", 2);
        assert_null(wan_safetensors_open_bytes(b.at, b.n, "test", &err));
        expect_error(&err, WAN_E_FORMAT, bad[i].part);
    }
    bytes b = {.n = 0};
    error err = {0};
    put_number(&b, 3, 8);
    put(&b, "{}\0", 3);
    assert_null(wan_safetensors_open_bytes(b.at, b.n, "test", &err));
    expect_error(&err, WAN_E_FORMAT, "JSON");
}

static void truncated_anywhere(void **state) {
    (void)state;
    bytes b = {.n = 0};
    put_safetensors(&b, "{" T("a", "F32", "[2]", 0, 8) "," T("b", "U8", "[3]", 8, 11) "}", 11);
    for (size_t n = 0; n < b.n; n++) {
        uint8_t *copy =
            malloc(n + 1); /* exactly as long, so that a sanitizer sees one byte too far */
        assert_non_null(copy);
        memcpy(copy, b.at, n);
        error err = {0};
        assert_null(wan_safetensors_open_bytes(copy, n, "test", &err));
        assert_int_equal(err.code, WAN_E_FORMAT);
        free(copy);
    }
}

static void not_files(void **state) {
    (void)state;
    char folder[256], name[512];
    make_folder(folder);
    snprintf(name, sizeof name, "%s/pipe", folder);
    assert_int_equal(mkfifo(name, 0666), 0);
    const struct {
        const char *path;
        wan_status code;
        const char *part;
    } bad[] = {{folder, WAN_E_IO, "folder"},
               {name, WAN_E_IO, "regular"},
               {"/nonexistent/x", WAN_E_IO, "No such file"},
               {make_file(folder, "empty", "", 0), WAN_E_FORMAT, "empty"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error err = {0};
        assert_null(wan_safetensors_open(bad[i].path, &err));
        expect_error(&err, bad[i].code, bad[i].part);
        assert_non_null(strstr(err.message, bad[i].path));
        assert_null(wan_safetensors_open(bad[i].path, NULL));
    }
    remove_folder(folder);
}

static void write_and_read(void **state) {
    (void)state;
    char folder[256], path[512];
    make_folder(folder);
    snprintf(path, sizeof path, "%s/out.safetensors", folder);
    float x[6] = {1, 2, 3, 4, 5, 6};
    uint8_t u = 7;
    const named_tensor out[] = {{"x", wan_tensor(WAN_F32, WAN_DIMS(2, 3), x)},
                                {"odd \" name é", wan_tensor(WAN_U8, 0, NULL, &u)},
                                {"none", wan_tensor(WAN_F16, WAN_DIMS(0), x)}};
    const char *const meta[] = {"seed", "7", "note", "a \"b\"", NULL};
    error err = {0};
    assert_int_equal(wan_safetensors_write(path, out, 3, meta, &err), WAN_OK);
    safetensors *s = wan_safetensors_open(path, &err);
    if (!s)
        fail_msg("%s", err.message);
    assert_int_equal(wan_safetensors_count(s), 3);
    for (int i = 0; i < 3; i++) {
        const named_tensor *n = wan_safetensors_find(s, out[i].name);
        assert_non_null(n);
        assert_int_equal(n->t.type, out[i].t.type);
        assert_true(wan_same_shape(n->t, out[i].t));
        assert_memory_equal(n->t.data, out[i].t.data, wan_bytes(n->t));
    }
    assert_string_equal(wan_safetensors_meta(s, "note"), "a \"b\"");
    assert_int_equal((uintptr_t)wan_safetensors_at(s, 0)->t.data % 8, 0);
    wan_safetensors_drop_pages(s);
    assert_memory_equal(wan_safetensors_find(s, "x")->t.data, x, sizeof x);
    wan_safetensors_close(s);
    assert_int_equal(count_files(folder), 1);
    remove_folder(folder);
}

static void write_refuses(void **state) {
    (void)state;
    char block[34] = {0};
    named_tensor n[2] = {{"q", wan_tensor(WAN_Q8_0, WAN_DIMS(32), block)}};
    error err = {0};
    assert_int_equal(wan_safetensors_write("/tmp/never", n, 1, NULL, &err), WAN_E_TYPE);
    expect_error(&err, WAN_E_TYPE, "q, which is Q8_0");
    n[0] = n[1] = (named_tensor){"same", wan_tensor(WAN_U8, WAN_DIMS(1), block)};
    err = (error){0};
    assert_int_equal(wan_safetensors_write("/tmp/never", n, 2, NULL, &err), WAN_E_OUTPUT);
    n[0].name = "\xff";
    err = (error){0};
    assert_int_equal(wan_safetensors_write("/tmp/never", n, 1, NULL, &err), WAN_E_OUTPUT);
    err = (error){0};
    n[0].name = "a";
    assert_int_equal(wan_safetensors_write("/nonexistent/x", n, 1, NULL, &err), WAN_E_OUTPUT);
    expect_error(&err, WAN_E_OUTPUT, "/nonexistent/x");
    assert_int_not_equal(access("/tmp/never", F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files),         cmocka_unit_test(what_is_inside),
        cmocka_unit_test(axes_of_one_go),     cmocka_unit_test(lying_headers),
        cmocka_unit_test(unknown_type),       cmocka_unit_test(lying_lengths),
        cmocka_unit_test(truncated_anywhere), cmocka_unit_test(not_files),
        cmocka_unit_test(write_and_read),     cmocka_unit_test(write_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
