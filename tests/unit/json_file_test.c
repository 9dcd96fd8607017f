/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "io/json_file.h"

static void depth(void **state) {
    (void)state;
    error err = {0};
    const char *text = "{\"a\":[{\"b]}\\\"[[[\":1}]}";
    json_t *j = wan_json_parse(text, strlen(text), 3, "p", "it", &err);
    assert_non_null(j);
    json_decref(j);
    assert_null(wan_json_parse(text, strlen(text), 2, "p", "it", &err));
    expect_error(&err, WAN_E_FORMAT, "p: it is nested 3 deep, at most 2");
}

static void files(void **state) {
    (void)state;
    char folder[256];
    error err = {0};
    make_folder(folder);
    json_t *j = wan_json_load(make_file(folder, "good", "{\"a\":1}", 7), &err);
    assert_int_equal(json_integer_value(json_object_get(j, "a")), 1);
    json_decref(j);
    static const char *const bad[] = {"{", "[1]", "{\"a\":1}x", "{\"a\":1,\"a\":2}",
                                      "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const char *path = make_file(folder, "bad", bad[i], strlen(bad[i]));
        err = (error){0};
        assert_null(wan_json_load(path, &err));
        expect_error(&err, WAN_E_FORMAT, path);
    }
    err = (error){0};
    assert_null(wan_json_load(folder, &err));
    expect_error(&err, WAN_E_IO, "folder");
    remove_folder(folder);
}

/* What a message quotes from a file cannot steer a terminal. */
static void no_control_characters(void **state) {
    (void)state;
    static const char *const bad[] = {"{\"a\": \x1b[2J}", "\x1b[2J", "{\"a\":\x7f}",
                                      "{\"\xc2\x9b\":x}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error err = {0};
        assert_null(wan_json_parse(bad[i], strlen(bad[i]), 3, "new\nline", "it", &err));
        expect_error(&err, WAN_E_FORMAT, "new?line: it is not good JSON");
        for (const char *p = err.message; *p; p++)
            assert_false((unsigned char)*p < 0x20 || *p == 0x7f || !strncmp(p, "\xc2\x9b", 2));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(depth), cmocka_unit_test(files),
                                       cmocka_unit_test(no_control_characters)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
