/* SPDX-License-Identifier: Apache-2.0 */
/* clean_test [FOLDER]: FOLDER/clean.json instead of the stored table
 * (tools/golden/make_text_tables.py). */
#include "text/clean.h"

#include "files.h"

#include <jansson.h>

#include "text/html.h"

static const char *folder = WAN_TEST_DATA "/data/text";

static void expect_clean(const char *prompt, const char *want) {
    error err = {0};
    char *got = wan_prompt_clean(prompt, &err);
    if (!got || strcmp(got, want) != 0)
        fail_msg("\"%s\" became \"%s\", expected \"%s\" %s", prompt, got ? got : "(null)", want,
                 err.message);
    free(got);
}

static void test_same_as_reference(void **state) {
    (void)state;
    char path[512];
    json_error_t why;
    snprintf(path, sizeof path, "%s/clean.json", folder);
    json_t *rows = json_load_file(path, 0, &why);
    if (!rows)
        fail_msg("%s: %s", path, why.text);
    assert_true(json_array_size(rows) > 100);
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row) expect_clean(json_string_value(json_array_get(row, 0)),
                                                  json_string_value(json_array_get(row, 1)));
    json_decref(rows);
}

static void test_each_step(void **state) {
    (void)state;
    expect_clean("", "");
    expect_clean(" \t\r\n ", "");
    expect_clean("a\n\n b\xC2\xA0 c ", "a b c");
    expect_clean("cafe\xCC\x81", "caf\xC3\xA9");
    expect_clean("\xEF\xBC\xA1\xEF\xBC\x8C\xE3\x80\x80x", "A, x");
    expect_clean("\xE2\x80\x9C"
                 "a\xE2\x80\x9D \xE2\x80\x98",
                 "\"a\" '");
    expect_clean("\xEF\xAC\x81re", "fire");
    expect_clean("\033[1;31mred\033[0m", "red");
    expect_clean("a\a\xEF\xBB\xBF"
                 "b",
                 "ab");
    expect_clean("\xC2\x80", "\xE2\x82\xAC");
}

static void test_references(void **state) {
    (void)state;
    expect_clean("&amp;amp;amp;amp;lt;", "<");              /* ftfy until nothing changes, */
    expect_clean("<&amp;amp;amp;amp;lt;", "<&amp;amp;lt;"); /* beside a "<" HTML's rule, twice */
    expect_clean("&EACUTE; &SZLIG;", "\xC3\x89 SS");
    expect_clean("<&EACUTE;", "<&EACUTE;");
    expect_clean("&notit;&#65", "\xC2\xACit;A");
    expect_clean("&#xD800;&#x110000;&#0;&#1;", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    expect_clean("&#4294967361; &; &#; &#x;", "\xEF\xBF\xBD &; &#; &#x;"); /* 2^32 + 65 is not A */
}

static void test_not_utf8(void **state) {
    (void)state;
    static const struct {
        const char *prompt, *what;
    } row[] = {
        {"cat \xFF", "byte 0xFF at offset 4 of 5"},
        {"\x80", "byte 0x80 at offset 0 of 1"},
        {"ab\xC3", "byte 0xC3 at offset 2 of 3"},
        {"\xC0\x80", "byte 0xC0 at offset 0 of 2"},
        {"\xE0\x9F\xBF", "byte 0xE0 at offset 0 of 3"},
        {"x\xED\xA0\x80", "byte 0xED at offset 1 of 4"},
        {"\xF4\x90\x80\x80", "byte 0xF4 at offset 0 of 4"},
        {"\xF0\x8F\xBF\xBF", "byte 0xF0 at offset 0 of 4"},
        {"\xE7\x8C", "byte 0xE7 at offset 0 of 2"},
        {"\xF5\x80\x80\x80", "byte 0xF5 at offset 0 of 4"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        error err = {0};
        assert_null(wan_prompt_clean(row[i].prompt, &err));
        expect_error(&err, WAN_E_TEXT, row[i].what);
    }
}

/* Every round reveals one reference more; cleaning gives up on such text instead of taking minutes.
 */
static void test_ends(void **state) {
    (void)state;
    enum { LEVELS = 4000 };
    char *prompt = calloc(1, 16 + LEVELS * 8);
    assert_non_null(prompt);
    strcpy(prompt, "&");
    for (int i = 0; i < LEVELS; i++)
        memcpy(prompt + 1 + 7 * i, "#65286;", 8);
    error err = {0};
    char *clean = wan_prompt_clean(prompt, &err);
    assert_non_null(clean);
    assert_true(strlen(clean) < strlen(prompt));
    free(clean);
    free(prompt);
}

/* All code points through encoding, checking and decoding. */
static void test_utf8(void **state) {
    (void)state;
    text_out out = {0};
    for (uint32_t code = 1; code <= 0x10FFFF; code++) {
        if (code >= 0xD800 && code <= 0xDFFF)
            continue;
        wan_text_reset(&out);
        wan_text_put_char(&out, code);
        const char *s = out.s;
        if (wan_utf8_length(out.s, out.size) != (int)out.size ||
            wan_utf8_check(out.s, out.size) != out.size ||
            wan_utf8_check(out.s, out.size - 1) != 0 || wan_utf8_read(&s) != code ||
            s != out.s + out.size)
            fail_msg("U+%04X", code);
    }
    free(out.s);
}

int main(int argc, char **argv) {
    if (argc > 1)
        folder = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_reference),
        cmocka_unit_test(test_each_step),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
