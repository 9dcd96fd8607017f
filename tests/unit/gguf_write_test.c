/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "io/gguf.h"
#include "io/gguf_write.h"

static char folder[256], path[512];

static int setup(void **state) {
    (void)state;
    make_folder(folder);
    snprintf(path, sizeof path, "%s/out.gguf", folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static gguf_writer *begin(void) {
    error err = {0};
    gguf_writer *w = wan_gguf_write_open(path, &err);
    if (!w)
        fail_msg("%s", err.message);
    return w;
}

static void write_all_kinds(gguf_writer *w) {
    wan_gguf_write_u32(w, "u32", 7);
    wan_gguf_write_f32(w, "f32", 0.5f);
    wan_gguf_write_bool(w, "bool", true);
    wan_gguf_write_string(w, "string", "wan");
    wan_gguf_write_strings(w, "strings", (const char *const[]){"a", "", "bc"}, 3);
    wan_gguf_write_f32s(w, "f32s", (float[]){1, -2}, 2);
    wan_gguf_write_i32s(w, "i32s", (int32_t[]){3, -4}, 2);
    wan_gguf_write_bytes(w, "bytes", "\1\2\3", 3);
}

static void expect_all_kinds(const gguf *g) {
    double d = 0;
    int64_t i = 0;
    size_t n = 0;
    assert_int_equal(wan_gguf_meta_count(g), 8);
    assert_true(wan_gguf_integer(wan_gguf_meta(g, "u32"), 0, &i) && i == 7);
    assert_true(wan_gguf_number(wan_gguf_meta(g, "f32"), 0, &d) && d == 0.5);
    assert_int_equal(wan_gguf_meta(g, "bool")->type, GGUF_BOOL);
    const gguf_value *v = wan_gguf_meta(g, "strings");
    assert_int_equal(v->count, 3);
    const uint8_t *at = v->at;
    wan_gguf_next_string(&at, &n);
    wan_gguf_next_string(&at, &n);
    assert_int_equal(n, 0);
    assert_memory_equal(wan_gguf_next_string(&at, &n), "bc", 2);
    assert_true(wan_gguf_number(wan_gguf_meta(g, "f32s"), 1, &d) && d == -2);
    assert_true(wan_gguf_integer(wan_gguf_meta(g, "i32s"), 1, &i) && i == -4);
    assert_true(wan_gguf_integer(wan_gguf_meta(g, "bytes"), 2, &i) && i == 3);
}

/* Read back by our own reader, which checks alignment, sizes and overlap; pieces end inside
 * tensors. */
static void read_back(void **state) {
    (void)state;
    error err = {0};
    uint8_t raw[5 * 3 * 4 + 2 * 34 + 2];
    for (size_t i = 0; i < sizeof raw; i++)
        raw[i] = (uint8_t)i;
    gguf_writer *w = begin();
    write_all_kinds(w);
    wan_gguf_write_tensor(w, "a", wan_tensor(WAN_F32, WAN_DIMS(5, 3), NULL));
    wan_gguf_write_tensor(w, "q", wan_tensor(WAN_Q8_0, WAN_DIMS(2, 32), NULL));
    wan_gguf_write_tensor(w, "s", wan_tensor(WAN_F16, 0, NULL, NULL));
    for (size_t at = 0; at < sizeof raw; at += 7)
        assert_int_equal(
            wan_gguf_write_data(w, raw + at, sizeof raw - at < 7 ? sizeof raw - at : 7, &err),
            WAN_OK);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(wan_gguf_write_commit(w, &err), WAN_OK);
    gguf *g = wan_gguf_open(path, &err);
    if (!g)
        fail_msg("%s", err.message);
    expect_all_kinds(g);
    assert_int_equal(wan_gguf_count(g), 3);
    tensor a = wan_gguf_find(g, "a")->t, q = wan_gguf_find(g, "q")->t, s = wan_gguf_find(g, "s")->t;
    assert_true(a.dim[0] == 5 && a.dim[1] == 3 && q.type == WAN_Q8_0 && q.dim[1] == 32 &&
                s.rank == 0);
    assert_memory_equal(a.data, raw, 60);
    assert_memory_equal(q.data, raw + 60, 68);
    assert_memory_equal(s.data, raw + 128, 2);
    wan_gguf_close(g);
    assert_int_equal(count_files(folder), 1);
}

static void broken_promises(void **state) {
    (void)state;
    error err = {0};
    char four[8] = {0};
    gguf_writer *w = begin();
    wan_gguf_write_tensor(w, "a", wan_tensor(WAN_F32, WAN_DIMS(1), NULL));
    assert_int_equal(wan_gguf_write_commit(w, &err), WAN_E_INTERNAL);
    expect_error(&err, WAN_E_INTERNAL, "only 0 of 1 tensors");
    err = (error){0};
    w = begin();
    wan_gguf_write_tensor(w, "a", wan_tensor(WAN_F32, WAN_DIMS(1), NULL));
    assert_int_equal(wan_gguf_write_data(w, four, 8, &err), WAN_E_INTERNAL);
    expect_error(&err, WAN_E_INTERNAL, "4 bytes beyond");
    wan_gguf_write_abort(w);
    err = (error){0};
    w = begin();
    wan_gguf_write_tensor(w, "b", wan_tensor(WAN_BOOL, WAN_DIMS(1), NULL));
    assert_int_equal(wan_gguf_write_commit(w, &err), WAN_E_TYPE);
    expect_error(&err, WAN_E_TYPE, "BOOL");
    assert_int_equal(count_files(folder), 0);
    wan_gguf_write_abort(NULL);
}

static void bad_place(void **state) {
    (void)state;
    error err = {0};
    assert_null(wan_gguf_write_open("/nonexistent/x.gguf", &err));
    expect_error(&err, WAN_E_OUTPUT, "/nonexistent/x.gguf");
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(read_back), TEST(broken_promises), TEST(bad_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
