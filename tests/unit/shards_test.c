/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "io/lookup.h"
#include "io/shards.h"

static shard_index *parse(const char *text, error *err) {
    *err = (error){0};
    return wan_shard_index_parse(text, strlen(text), "dir/index", err);
}

static void good_index(void **state) {
    (void)state;
    error err;
    shard_index *x =
        parse("{\"metadata\":{\"total_size\":\"many\"},\"weight_map\":"
              "{\"c\":\"2.safetensors\",\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}",
              &err);
    if (!x)
        fail_msg("%s", err.message);
    assert_int_equal(wan_shard_index_files(x), 2);
    assert_string_equal(wan_shard_index_file(x, 0), "1.safetensors");
    assert_string_equal(wan_shard_index_file(x, 1), "2.safetensors");
    assert_null(wan_shard_index_file(x, 2));
    assert_int_equal(wan_shard_index_tensors(x), 3);
    assert_string_equal(wan_shard_index_tensor(x, 0), "c");
    assert_null(wan_shard_index_tensor(x, 3));
    assert_int_equal(wan_shard_index_where(x, 0), 1);
    assert_int_equal(wan_shard_index_where(x, 1), 0);
    assert_int_equal(wan_shard_index_find(x, "b"), 1);
    assert_int_equal(wan_shard_index_find(x, "d"), WAN_NOT_FOUND);
    wan_shard_index_close(x);
}

static void bad_index(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "JSON"},
        {"[]", "not a JSON object"},
        {"{}", "no weight_map"},
        {"{\"weight_map\":{}}", "no weight_map"},
        {"{\"weight_map\":[]}", "no weight_map"},
        {"{\"weight_map\":{\"a\":1}}", "a is not mapped to a file name"},
        {"{\"weight_map\":{\"a\":null}}", "a is not mapped"},
        {"{\"weight_map\":{\"\":\"f\"}}", "empty"},
        {"{\"weight_map\":{\"a\\n\":\"f\"}}", "not text"},
        {"{\"weight_map\":{\"a\":\"\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"..\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\".hidden\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
         "'/etc/passwd', which is not a plain file name"},
        {"{\"weight_map\":{\"a\":\"x/../y\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"x\\\\y\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"C:y\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"x\\u0000\"}}", "JSON"},
        {"{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", "JSON"},
        {"{\"weight_map\":{\"a\":[[[[[[[1]]]]]]]}}", "nested 9 deep"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        error err;
        if (parse(bad[i].text, &err))
            fail_msg("%s was accepted", bad[i].text);
        expect_error(&err, WAN_E_FORMAT, bad[i].part);
        assert_non_null(strstr(err.message, "dir/index: "));
    }
}

static void truncated_anywhere(void **state) {
    (void)state;
    const char *text = "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}";
    for (size_t n = 0; n < strlen(text); n++) {
        char *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, text, n);
        error err = {0};
        assert_null(wan_shard_index_parse(copy, n, "x", &err));
        assert_int_equal(err.code, WAN_E_FORMAT);
        free(copy);
    }
}

static void make_shard(const char *folder, const char *name, const char *header) {
    static bytes b;
    b.n = 0;
    put_safetensors(&b, header, 1);
    make_file(folder, name, b.at, b.n);
}

#define ONE(name) "{\"" name "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"

static shards *open_set(const char *folder, const char *index, error *err) {
    *err = (error){0};
    return wan_shards_open(make_file(folder, "m.safetensors.index.json", index, strlen(index)),
                           err);
}

static void sets(void **state) {
    (void)state;
    char folder[256];
    error err;
    make_folder(folder);
    make_shard(folder, "1.safetensors", ONE("a"));
    make_shard(folder, "2.safetensors", ONE("b"));
    make_file(folder, "bad.safetensors", "123", 3);

    shards *s = open_set(
        folder, "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}", &err);
    if (!s)
        fail_msg("%s", err.message);
    assert_int_equal(wan_shards_files(s), 2);
    assert_non_null(wan_safetensors_find(wan_shards_file(s, 1), "b"));
    assert_non_null(strstr(wan_shards_path(s, 1), "/2.safetensors"));
    assert_null(wan_shards_file(s, 2));
    assert_int_equal(wan_shard_index_tensors(wan_shards_index(s)), 2);
    wan_shards_close(s);
    wan_shards_close(NULL);

    assert_null(open_set(
        folder, "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}", &err));
    expect_error(&err, WAN_E_FORMAT, "c should be in 2.safetensors, but is not");
    assert_null(open_set(
        folder, "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"3.safetensors\"}}", &err));
    expect_error(&err, WAN_E_IO, "/3.safetensors: No such file");
    assert_non_null(strstr(err.message, "a part of"));
    assert_null(open_set(
        folder, "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"bad.safetensors\"}}", &err));
    expect_error(&err, WAN_E_FORMAT, "/bad.safetensors: has 3 bytes");
    assert_null(wan_shards_open("/nonexistent/i.json", &err));
    remove_folder(folder);
}

static void numbers(void **state) {
    (void)state;
    size_t stem;
    int number, of;
    assert_true(wan_shard_number("d/model-00002-of-00005.safetensors", &stem, &number, &of));
    assert_int_equal(stem, 7);
    assert_int_equal(number, 2);
    assert_int_equal(of, 5);
    assert_true(wan_shard_number("-00001-of-00001.safetensors", &stem, &number, &of));
    static const char *const not_one[] = {"model.safetensors",
                                          "model-0002-of-00005.safetensors",
                                          "model-00002-of-00005.gguf",
                                          "model-00002_of_00005.safetensors",
                                          "00002-of-00005.safetensors",
                                          "",
                                          ".safetensors",
                                          "model-00002-of-00005.safetensors.bak"};
    for (size_t i = 0; i < sizeof not_one / sizeof not_one[0]; i++)
        assert_false(wan_shard_number(not_one[i], &stem, &number, &of));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_index),
        cmocka_unit_test(bad_index),
        cmocka_unit_test(truncated_anywhere),
        cmocka_unit_test(sets),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
