/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer_test [FOLDER]: FOLDER/spiece.model and tokens.json instead of the stored ones
 * (tools/golden/make_text_tables.py). */
#include "text/tokenizer.h"

#include "files.h"

#include <jansson.h>
#include <math.h>

static const char *folder = WAN_TEST_DATA "/data/text";

/* ------------------------------------------------------------------------------ SentencePiece
 * files made by hand */

enum { PLAIN = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5 };

static void put_varint(bytes *b, uint64_t v) {
    for (; v > 127; v >>= 7)
        put_number(b, (v & 127) | 128, 1);
    put_number(b, v, 1);
}

static void put_field(bytes *b, int number, const void *body, size_t n) {
    put_varint(b, (uint64_t)number << 3 | 2);
    put_varint(b, n);
    put(b, body, n);
}

static void put_flag(bytes *b, int number, uint64_t v) {
    put_varint(b, (uint64_t)number << 3);
    put_varint(b, v);
}

static void put_piece(bytes *model, const char *text, float score, int kind) {
    static bytes p;
    p.n = 0;
    put_field(&p, 1, text, strlen(text));
    put_varint(&p, 2 << 3 | 5);
    put(&p, &score, sizeof score);
    put_flag(&p, 3, (uint64_t)kind);
    put_field(model, 1, p.at, p.n);
}

static void put_ids(bytes *model) {
    put_piece(model, "<pad>", 0, CONTROL);
    put_piece(model, "</s>", 0, CONTROL);
    put_piece(model, "<unk>", 0, UNKNOWN);
}

/* TrainerSpec of kind `kind`, then NormalizerSpec with a character map of n bytes. */
static void put_switches(bytes *model, int kind, size_t map) {
    static bytes p;
    p.n = 0;
    put_flag(&p, 3, (uint64_t)kind);
    put_field(model, 2, p.at, p.n);
    p.n = 0;
    put_field(&p, 2, "123456789", map);
    put_flag(&p, 3, 1);
    put_flag(&p, 4, 0);
    put_flag(&p, 5, 1);
    put_field(model, 3, p.at, p.n);
}

static tokenizer *open_bytes(const bytes *b, error *err) {
    *err = (error){0};
    return wan_tokenizer_open_bytes(b->at, b->n, "made by hand", err);
}

static void expect_refused(const bytes *b, const char *why) {
    error err;
    assert_null(open_bytes(b, &err));
    expect_error(&err, WAN_E_FORMAT, why);
}

static void expect_ids(const tokenizer *t, const char *prompt, int n, const int *want) {
    int32_t ids[WAN_TEXT_LEN];
    int count = 0, dropped = 0;
    error err = {0};
    assert_int_equal(wan_tokenize(t, prompt, ids, &count, &dropped, &err), WAN_OK);
    assert_int_equal(count, n);
    for (int i = 0; i < WAN_TEXT_LEN; i++) {
        if (ids[i] != (i < n ? want[i] : 0))
            fail_msg("\"%s\": id %d is %d", prompt, i, ids[i]);
    }
}

#define EXPECT_IDS(t, prompt, ...)                                                                 \
    expect_ids(t, prompt, sizeof((int[]){__VA_ARGS__}) / sizeof(int), (int[]){__VA_ARGS__})

/* -----------------------------------------------------------------------------------------------------
 * the tests */

static void test_same_as_reference(void **state) {
    (void)state;
    char path[512];
    json_error_t why;
    error err = {0};
    tokenizer *t = wan_tokenizer_open(folder, &err);
    assert_non_null(t);
    snprintf(path, sizeof path, "%s/tokens.json", folder);
    json_t *rows = json_load_file(path, 0, &why), *row;
    if (!rows)
        fail_msg("%s: %s", path, why.text);
    assert_true(json_array_size(rows) > 100);
    size_t i;
    json_array_foreach(rows, i, row) {
        const char *prompt = json_string_value(json_array_get(row, 0));
        const json_t *want = json_array_get(row, 1);
        int32_t ids[WAN_TEXT_LEN];
        int count, dropped;
        assert_int_equal(wan_tokenize(t, prompt, ids, &count, &dropped, &err), WAN_OK);
        assert_int_equal(dropped, json_integer_value(json_array_get(row, 2)));
        if (count != (int)json_array_size(want))
            fail_msg("\"%s\": %d ids, expected %zu", prompt, count, json_array_size(want));
        for (int k = 0; k < WAN_TEXT_LEN; k++) {
            if (ids[k] != (k < count ? json_integer_value(json_array_get(want, (size_t)k)) : 0))
                fail_msg("\"%s\": id %d is %d", prompt, k, ids[k]);
        }
    }
    json_decref(rows);
    wan_tokenizer_close(t);
}

static void test_file_or_folder(void **state) {
    (void)state;
    char path[512];
    error err = {0};
    tokenizer *a = wan_tokenizer_open(folder, &err);
    snprintf(path, sizeof path, "%s/spiece.model", folder);
    tokenizer *b = wan_tokenizer_open(path, &err);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(wan_tokenizer_pieces(a), wan_tokenizer_pieces(b));
    wan_tokenizer_close(a);
    wan_tokenizer_close(b);
    assert_null(wan_tokenizer_open("/nonexistent/spiece.model", &err));
    expect_error(&err, WAN_E_IO, "/nonexistent/spiece.model");
}

#define SPACE "\xE2\x96\x81"

static void test_segmentation(void **state) {
    (void)state;
    static bytes b;
    error err;
    put_ids(&b);
    put_piece(&b, SPACE, -2, PLAIN);        /* 3 */
    put_piece(&b, "a", -3, PLAIN);          /* 4 */
    put_piece(&b, "b", -3, PLAIN);          /* 5 */
    put_piece(&b, "ab", -6, PLAIN);         /* 6: as good as a, b; the way found first stays */
    put_piece(&b, SPACE "c", -4, PLAIN);    /* 7 */
    put_piece(&b, "cc", -1, USER);          /* 8 */
    put_piece(&b, "a" SPACE "b", 9, PLAIN); /* 9: never, words are solved alone */
    put_piece(&b, "x", -1, UNUSED);         /* 10: in the vocabulary all the same */
    put_switches(&b, 1, 0);
    tokenizer *t = open_bytes(&b, &err);
    assert_non_null(t);
    assert_int_equal(wan_tokenizer_pieces(t), 11);
    EXPECT_IDS(t, "", 1);
    EXPECT_IDS(t, "ab", 3, 6, 1);
    EXPECT_IDS(t, "a b", 3, 4, 3, 5, 1);
    EXPECT_IDS(t, "cc x", 3, 8, 3, 10, 1);
    EXPECT_IDS(t, "c c", 7, 7, 1);
    EXPECT_IDS(t, "zzz zz", 3, 2, 3, 2, 1); /* neighbours fuse, words do not */
    EXPECT_IDS(t, SPACE "a", 3, 4, 1);      /* no second mark */
    EXPECT_IDS(t, "a </s> b", 3, 4, 3, 1, 3, 5, 1);
    EXPECT_IDS(t, "a</s>b", 3, 4, 1, 3, 5, 1);
    EXPECT_IDS(t, "z<unk>z", 3, 2, 2, 3, 2, 1);
    EXPECT_IDS(t, "<extra_id_0>", 3, 2, 10, 2, 4, 2, 1); /* only UMT5 has that marker */
    wan_tokenizer_close(t);
}

static void test_length(void **state) {
    (void)state;
    static bytes b;
    error err;
    static char prompt[2 * 700];
    put_ids(&b);
    put_piece(&b, SPACE "a", -2, PLAIN);
    put_switches(&b, 1, 0);
    tokenizer *t = open_bytes(&b, &err);
    assert_non_null(t);
    for (int n = 510; n <= 513; n++) {
        for (int i = 0; i < n; i++)
            memcpy(prompt + 2 * i, "a ", 3);
        int32_t ids[WAN_TEXT_LEN];
        int count, dropped, kept = n < 511 ? n : 511;
        assert_int_equal(wan_tokenize(t, prompt, ids, &count, &dropped, &err), WAN_OK);
        assert_int_equal(count, kept + 1);
        assert_int_equal(dropped, n - kept);
        assert_int_equal(ids[kept - 1], 3);
        assert_int_equal(ids[kept], 1);
        if (kept < 511)
            assert_int_equal(ids[kept + 1], 0);
    }
    int32_t ids[WAN_TEXT_LEN];
    int count;
    assert_int_equal(wan_tokenize(t, "\xFF", ids, &count, NULL, &err), WAN_E_TEXT);
    wan_tokenizer_close(t);
}

/* The one vocabulary of its size gets its 300 markers, in descending order behind the pieces. */
static void test_markers(void **state) {
    (void)state;
    enum { PIECES = 256000, ROOM = 24 };
    bytes head = {0};
    uint8_t *model = malloc((size_t)PIECES * ROOM);
    assert_non_null(model);
    put_ids(&head);
    put_piece(&head, SPACE "a", -2, PLAIN);
    put_switches(&head, 1, 0);
    memcpy(model, head.at, head.n);
    size_t n = head.n;
    for (int i = 4; i < PIECES; i++) {
        char text[16];
        int length = snprintf(text, sizeof text, "w%06d", i);
        model[n++] = 1 << 3 | 2;
        model[n++] = (uint8_t)(2 + length);
        model[n++] = 1 << 3 | 2;
        model[n++] = (uint8_t)length;
        memcpy(model + n, text, (size_t)length);
        n += (size_t)length;
    }
    error err = {0};
    tokenizer *t = wan_tokenizer_open_bytes(model, n, "big", &err);
    free(model);
    assert_non_null(t);
    EXPECT_IDS(t, "a<extra_id_0><extra_id_299> w000004 ", 3, 256299, 256000, 2, 4, 1);
    EXPECT_IDS(t, "<extra_id_300><extra_id_01>", 2, 1);
    wan_tokenizer_close(t);
}

static void test_other_tokenizers(void **state) {
    (void)state;
    static bytes b;
    put_ids(&b);
    put_piece(&b, SPACE, -2, PLAIN);
    size_t n = b.n;
    put_switches(&b, 2, 0);
    expect_refused(&b, "is of kind 2");
    b.n = n;
    put_switches(&b, 1, 9);
    expect_refused(&b, "character map of 9 bytes");
    b.n = 0;
    put_piece(&b, "</s>", 0, CONTROL);
    put_piece(&b, "<pad>", 0, CONTROL);
    put_piece(&b, "<unk>", 0, UNKNOWN);
    put_piece(&b, SPACE, -2, PLAIN);
    put_switches(&b, 1, 0);
    expect_refused(&b, "pad 1, end 0 and unknown 2");
    b.n = 0;
    put_piece(&b, "<pad>", 0, CONTROL);
    put_piece(&b, "</s>", 0, CONTROL);
    put_piece(&b, SPACE, -2, PLAIN);
    put_switches(&b, 1, 0);
    expect_refused(&b, "libsentencepiece refuses");
}

static void test_bad_pieces(void **state) {
    (void)state;
    static bytes b;
    static char longest[2050];
    memset(longest, 'a', sizeof longest - 1);
    static const struct {
        const char *text;
        float score;
        const char *why;
    } row[] = {
        {"", -1, "piece 3 of the tokenizer model is empty"},
        {"\xFFx", -1, "piece 3"},
        {longest, -1, "(it has 2049)"},
        {"a", NAN, "score of piece 3"},
        {"a", INFINITY, "score of piece 3"},
        {"</s>", -1, "are the same"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        b.n = 0;
        put_ids(&b);
        put_piece(&b, row[i].text, row[i].score, PLAIN);
        put_switches(&b, 1, 0);
        expect_refused(&b, row[i].why);
    }
    b.n = 0;
    put_switches(&b, 1, 0);
    expect_refused(&b, "no pieces");
    static const uint8_t nul[] = {1 << 3 | 2, 2, 'a', 0};
    put_ids(&b);
    put_field(&b, 1, nul, sizeof nul);
    expect_refused(&b, "piece 3");
}

/* Every cut and every flipped byte of a real file: an error or a tokenizer that works, never a
 * crash. */
static void test_damage(void **state) {
    (void)state;
    static bytes b;
    error err;
    put_ids(&b);
    put_piece(&b, SPACE, -2, PLAIN);
    put_piece(&b, "ab", -2.5f, PLAIN);
    put_switches(&b, 1, 0);
    size_t whole = b.n;
    int opened = 0;
    for (size_t cut = 0; cut < whole; cut++) {
        b.n = cut;
        tokenizer *t = open_bytes(&b, &err);
        opened += t != NULL;
        assert_true(t ? err.code == WAN_OK : err.code == WAN_E_FORMAT);
        wan_tokenizer_close(t);
    }
    assert_true(opened <= 4); /* whole pieces more than needed, or whole switches less */
    b.n = whole;
    for (size_t i = 0; i < whole; i++) {
        for (int bit = 0; bit < 8; bit++) {
            b.at[i] ^= (uint8_t)(1 << bit);
            tokenizer *t = open_bytes(&b, &err);
            int32_t ids[WAN_TEXT_LEN];
            int count;
            assert_true(t ? err.code == WAN_OK : err.code == WAN_E_FORMAT);
            if (t)
                assert_int_equal(wan_tokenize(t, "ab </s> \xE7\x8C\xAB", ids, &count, NULL, &err),
                                 WAN_OK);
            wan_tokenizer_close(t);
            b.at[i] ^= (uint8_t)(1 << bit);
        }
    }
}

int main(int argc, char **argv) {
    if (argc > 1)
        folder = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_reference), cmocka_unit_test(test_file_or_folder),
        cmocka_unit_test(test_segmentation),      cmocka_unit_test(test_length),
        cmocka_unit_test(test_markers),           cmocka_unit_test(test_other_tokenizers),
        cmocka_unit_test(test_bad_pieces),        cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
