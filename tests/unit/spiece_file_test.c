/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <math.h>

#include "io/safetensors.h"
#include "text/spiece_write.h"
#include "text/tokenizer.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))
#define SPACE "\xE2\x96\x81"

/* GGUF's numbers for types of values, and of tokens. */
enum { U8 = 0, U32 = 4, I32 = 5, F32 = 6, STRING = 8, ARRAY = 9 };
enum { PLAIN = 1, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE };

typedef struct token {
    const char *text;
    float score;
    int type;
} token;

static const token usual[] = {
    {"<pad>", 0, CONTROL}, {"</s>", 0, CONTROL},       {"<unk>", 0, UNKNOWN},
    {SPACE, -2, PLAIN},    {"a", -3, PLAIN},           {"<0x41>", 0, BYTE},
    {"gone", -1, UNUSED},  {SPACE "b", -4, PLAIN},     {"<extra>", -1000, ADDED},
    {"", 0, UNUSED},       {"[PAD1]", -10000, UNUSED},
};

/* What a test changes of the usual tokenizer. */
typedef struct variant {
    const char *model, *leave_out;
    size_t tokens, scores; /* fewer of them */
    int score_type;
    size_t charsmap;
    const token *token; /* in place of token 4 */
} variant;

static void put_key(bytes *b, const char *key, int type, uint64_t *count) {
    ++*count;
    put_string(b, key);
    put_number(b, (uint64_t)type, 4);
}

static void put_array(bytes *b, const char *key, int type, size_t n, uint64_t *count) {
    put_key(b, key, ARRAY, count);
    put_number(b, (uint64_t)type, 4);
    put_number(b, n, 8);
}

static const token *token_at(const variant *v, size_t i) {
    return i == 4 && v->token ? v->token : &usual[i];
}

static void put_lists(bytes *b, const variant *v, uint64_t *count) {
    const char *out = v->leave_out ? v->leave_out : "";
    size_t tokens = COUNT(usual) - v->tokens, scores = COUNT(usual) - v->scores;
    if (strcmp(out, "tokens") != 0) {
        put_array(b, "tokenizer.ggml.tokens", STRING, tokens, count);
        for (size_t i = 0; i < tokens; i++)
            put_string(b, token_at(v, i)->text);
    }
    if (strcmp(out, "scores") != 0) {
        put_array(b, "tokenizer.ggml.scores", v->score_type ? v->score_type : F32, scores, count);
        for (size_t i = 0; i < scores; i++)
            put(b, &token_at(v, i)->score, 4);
    }
    if (strcmp(out, "types") != 0) {
        put_array(b, "tokenizer.ggml.token_type", I32, COUNT(usual), count);
        for (size_t i = 0; i < COUNT(usual); i++)
            put_number(b, (uint64_t)token_at(v, i)->type, 4);
    }
}

static const char *make_gguf(const variant *v, char folder[256]) {
    static bytes kv, file;
    uint64_t count = 0;
    kv.n = file.n = 0;
    put_key(&kv, "tokenizer.ggml.model", STRING, &count);
    put_string(&kv, v->model ? v->model : "t5");
    put_lists(&kv, v, &count);
    put_array(&kv, "tokenizer.ggml.precompiled_charsmap", U8, v->charsmap, &count);
    put(&kv, "123456789", v->charsmap);
    put_key(&kv, "tokenizer.ggml.unknown_token_id", U32, &count);
    put_number(&kv, 2, 4);
    put(&file, "GGUF", 4);
    put_number(&file, 3, 4);
    put_number(&file, 0, 8);
    put_number(&file, count, 8);
    put(&file, kv.at, kv.n);
    return make_file(make_folder(folder), "t5.gguf", file.at, file.n);
}

static tokenizer *open_gguf(const variant *v, error *err) {
    char folder[256];
    *err = (error){0};
    tokenizer *t = wan_tokenizer_open(make_gguf(v, folder), err);
    remove_folder(folder);
    return t;
}

static void expect_ids(const tokenizer *t, const char *prompt, int n, const int *want) {
    int32_t ids[WAN_TEXT_LEN];
    int count = 0;
    error err = {0};
    assert_int_equal(wan_tokenize(t, prompt, ids, &count, NULL, &err), WAN_OK);
    assert_int_equal(count, n);
    for (int i = 0; i < n; i++)
        assert_int_equal(ids[i], want[i]);
}

#define EXPECT_IDS(t, prompt, ...)                                                                 \
    expect_ids(t, prompt, COUNT(((int[]){__VA_ARGS__})), (int[]){__VA_ARGS__})

static void test_gguf(void **state) {
    (void)state;
    error err;
    tokenizer *t = open_gguf(&(variant){0}, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(wan_tokenizer_pieces(t), 9); /* fillers at the end are none */
    EXPECT_IDS(t, "a b", 3, 4, 7, 1);
    EXPECT_IDS(t, "a<extra>a</s>", 3, 4, 8, 3, 4, 1, 1);
    EXPECT_IDS(t, "agone a<0x41>", 3, 4, 2, 3, 4, 5, 1); /* an unused token is no piece */
    EXPECT_IDS(t, "[PAD1]", 3, 2, 1);
    wan_tokenizer_close(t);
}

/* As a spiece.model it says the same about every text. */
static void test_written(void **state) {
    (void)state;
    char folder[256];
    error err = {0};
    text_out out = {0};
    assert_int_equal(wan_spiece_bytes(make_gguf(&(variant){0}, folder), &out, &err), WAN_OK);
    remove_folder(folder);
    tokenizer *t = wan_tokenizer_open_bytes(out.s, out.size, "written", &err);
    assert_string_equal(err.message, "");
    assert_int_equal(wan_tokenizer_pieces(t), 9);
    EXPECT_IDS(t, "a b", 3, 4, 7, 1);
    EXPECT_IDS(t, "a<extra>a</s>", 3, 4, 8, 3, 4, 1, 1);
    EXPECT_IDS(t, "agone a<0x41>", 3, 4, 2, 3, 4, 5, 1);
    EXPECT_IDS(t, "[PAD1]", 3, 2, 1);
    wan_tokenizer_close(t);
    free(out.s);
}

/* Bytes that are one already stay as they are. */
static void test_copied(void **state) {
    (void)state;
    static uint8_t model[1 << 16];
    error err = {0};
    text_out out = {0};
    FILE *f = fopen(WAN_TEST_DATA "/data/text/spiece.model", "rb");
    assert_non_null(f);
    size_t size = fread(model, 1, sizeof model, f);
    fclose(f);
    assert_int_equal(wan_spiece_bytes(WAN_TEST_DATA "/data/text/spiece.model", &out, &err), WAN_OK);
    assert_int_equal(out.size, size);
    assert_memory_equal(out.s, model, size);
    free(out.s);
    out = (text_out){0};
    assert_int_equal(wan_spiece_bytes(WAN_TEST_DATA "/data/text/absent", &out, &err), WAN_E_IO);
    assert_null(out.s);
}

static void test_refused(void **state) {
    (void)state;
    static const token nan_score = {"a", NAN, PLAIN}, odd_type = {"a", -3, 7},
                       empty = {"", -3, PLAIN}, not_text = {"\xFF", -3, PLAIN},
                       twice = {SPACE, -3, PLAIN};
    static const struct {
        variant v;
        const char *why;
    } row[] = {
        {{.model = "llama"}, "tokenizer.ggml.model is not t5"},
        {{.leave_out = "tokens"}, "tokenizer.ggml.tokens is missing"},
        {{.leave_out = "scores"}, "tokenizer.ggml.scores is missing"},
        {{.leave_out = "types"}, "tokenizer.ggml.token_type is missing"},
        {{.tokens = 1}, "10 tokens, 11 scores and 11 types"},
        {{.scores = 2}, "11 tokens, 9 scores and 11 types"},
        {{.score_type = I32}, "tokenizer.ggml.scores is an array of i32, expected an array of f32"},
        {{.charsmap = 9}, "character map of 9 entries"},
        {{.token = &nan_score}, "score of token 4"},
        {{.token = &odd_type}, "token 4 is of no known type"},
        {{.token = &empty}, "token 4 is no text"},
        {{.token = &not_text}, "token 4 is no text"},
        {{.token = &twice}, "of the tokenizer are the same"},
    };
    for (size_t i = 0; i < COUNT(row); i++) {
        error err;
        tokenizer *t = open_gguf(&row[i].v, &err);
        assert_null(t);
        expect_error(&err, WAN_E_FORMAT, row[i].why);
    }
}

static void test_safetensors(void **state) {
    (void)state;
    static uint8_t model[1 << 16];
    char folder[256], path[300];
    FILE *f = fopen(WAN_TEST_DATA "/data/text/spiece.model", "rb");
    assert_non_null(f);
    int64_t size = (int64_t)fread(model, 1, sizeof model, f);
    fclose(f);
    error err = {0};
    snprintf(path, sizeof path, "%s/t5.safetensors", make_folder(folder));
    named_tensor n = {"spiece_model", wan_tensor(WAN_U8, 1, &size, model)};
    assert_int_equal(wan_safetensors_write(path, &n, 1, NULL, &err), WAN_OK);
    tokenizer *a = wan_tokenizer_open(path, &err);
    tokenizer *b = wan_tokenizer_open(WAN_TEST_DATA "/data/text", &err);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(wan_tokenizer_pieces(a), wan_tokenizer_pieces(b));
    wan_tokenizer_close(a);
    wan_tokenizer_close(b);
    n.name = "text_encoder.spiece_model"; /* of a file of all parts */
    assert_int_equal(wan_safetensors_write(path, &n, 1, NULL, &err), WAN_OK);
    a = wan_tokenizer_open(path, &err);
    assert_non_null(a);
    wan_tokenizer_close(a);
    n.name = "other";
    assert_int_equal(wan_safetensors_write(path, &n, 1, NULL, &err), WAN_OK);
    assert_null(wan_tokenizer_open(path, &err));
    expect_error(&err, WAN_E_FORMAT, "no tensor spiece_model");
    remove_folder(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf),        cmocka_unit_test(test_written),
        cmocka_unit_test(test_copied),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_safetensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
