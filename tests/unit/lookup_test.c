/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "io/lookup.h"
#include "io/utf8.h"

static void finds_all(void **state) {
    (void)state;
    enum { N = 1000 };
    static char name[N][16];
    lookup l = {0};
    error err = {0};
    assert_null(wan_lookup_sort(&l));
    assert_int_equal(wan_lookup_find(&l, "x"), WAN_NOT_FOUND);
    for (size_t i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "n%zu", i * 7919 % N);
        assert_int_equal(wan_lookup_add(&l, name[i], i, &err), WAN_OK);
    }
    assert_null(wan_lookup_sort(&l));
    for (size_t i = 0; i < N; i++)
        assert_int_equal(wan_lookup_find(&l, name[i]), i);
    assert_int_equal(wan_lookup_find(&l, "n"), WAN_NOT_FOUND);
    assert_int_equal(wan_lookup_find(&l, "n1000"), WAN_NOT_FOUND);
    assert_int_equal(wan_lookup_find(&l, "zz"), WAN_NOT_FOUND);
    assert_int_equal(wan_lookup_add(&l, "n5", 7, &err), WAN_OK);
    assert_string_equal(wan_lookup_sort(&l), "n5");
    wan_lookup_free(&l);
}

static void text_or_not(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool plain;
    } c[] = {
        {"", true},
        {"blocks.0 ~", true},
        {"\xc3\xa9\xe7\x8c\xab\xf0\x9f\x99\x82", true},
        {"\xf4\x8f\xbf\xbf", true},  /* U+10FFFF */
        {"\xf4\x90\x80\x80", false}, /* beyond */
        {"\xed\xa0\x80", false},     /* surrogate */
        {"\xc0\xaf", false},         /* overlong */
        {"\xe0\x80\xaf", false},     /* overlong */
        {"\xc2\x80", false},         /* C1 control */
        {"\x1f", false},
        {"\x7f", false},
        {"a\xff", false},
        {"a\xe7\x8c", false},
        {"\xe7"
         "ab",
         false},
        {"\x80", false},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
        assert_int_equal(wan_utf8_plain(c[i].text, strlen(c[i].text)), c[i].plain);
    assert_false(wan_utf8_plain("a\0b", 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(finds_all), cmocka_unit_test(text_or_not)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
