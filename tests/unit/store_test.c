/* SPDX-License-Identifier: Apache-2.0 */
#include "weightfiles.h"

#include "weights/store.h"

static char folder[256];

static int setup(void **state) {
    (void)state;
    make_folder(folder);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    remove_folder(folder);
    return 0;
}

static const spec dit_diffusers[] = {{"blocks.0.attn1.to_q.weight", WAN_F32, 2, {2, 3}},
                                     {"scale_shift_table", WAN_BF16, 3, {1, 2, 2}}};
static const spec dit_original[] = {{"head.modulation", WAN_F32, 3, {1, 2, 2}},
                                    {"blocks.0.self_attn.q.weight", WAN_F16, 2, {2, 3}}};
static const spec text_hf[] = {
    {"shared.weight", WAN_F32, 2, {4, 2}},
    {"encoder.block.0.layer.0.SelfAttention.q.weight", WAN_F32, 2, {2, 2}}};

static store *open_ok(const char *path, part which) {
    error err = {0};
    store *s = wan_store_open(path, which, &err);
    if (!s)
        fail_msg("%s", err.message);
    return s;
}

static void refuse(const char *path, part which, wan_status code, const char *part_of_message) {
    error err = {0};
    store *s = wan_store_open(path, which, &err);
    assert_null(s);
    expect_error(&err, code, part_of_message);
    assert_null(wan_store_open(path, which, NULL));
}

static void one_file(void **state) {
    (void)state;
    const char *path = make_weights(folder, "a.safetensors", dit_diffusers, 2);
    store *s = open_ok(path, PART_DIT);
    assert_int_equal(wan_store_count(s), 2);
    assert_string_equal(wan_store_layout(s), "diffusers");
    assert_string_equal(wan_store_path(s), path);
    assert_int_equal(wan_store_bytes(s), 24 + 8);
    const stored *t = wan_store_find(s, "blocks.0.self_attn.q.weight");
    assert_non_null(t);
    assert_ptr_equal(t, wan_store_at(s, 0));
    assert_string_equal(t->source, "blocks.0.attn1.to_q.weight");
    assert_string_equal(t->file, path);
    assert_int_equal(t->t.dim[1], 3);
    float f;
    memcpy(&f, (const char *)t->t.data + 20, 4);
    assert_true(f == 6);
    assert_string_equal(wan_store_find(s, "head.modulation")->source, "scale_shift_table");
    assert_null(wan_store_find(s, "scale_shift_table"));
    assert_null(wan_store_at(s, 2));
    assert_string_equal(wan_store_meta(s, "format"), "pt");
    assert_null(wan_store_meta(s, "formal"));
    assert_null(wan_store_config(s));
    wan_store_drop_pages(s);
    memcpy(&f, t->t.data, 4);
    assert_true(f == 1);
    wan_store_close(s);
    wan_store_close(NULL);
}

static void gguf_file(void **state) {
    (void)state;
    static const spec text[] = {{"token_embd.weight", WAN_Q8_0, 2, {3, 32}},
                                {"enc.blk.0.attn_norm.weight", WAN_F32, 1, {32}}};
    store *s = open_ok(make_gguf(folder, "t.gguf", text, 2), PART_TEXT);
    assert_string_equal(wan_store_layout(s), "gguf");
    const stored *t = wan_store_find(s, "token_embedding.weight");
    assert_int_equal(t->t.type, WAN_Q8_0);
    assert_int_equal(t->t.dim[0], 3);
    assert_int_equal(t->t.dim[1], 32);
    assert_non_null(wan_store_find(s, "blocks.0.norm1.weight"));
    assert_string_equal(wan_store_meta(s, "general.architecture"), "wan");
    assert_string_equal(wan_store_meta(s, "seven"), "7");
    assert_string_equal(wan_store_meta(s, "half"), "0.5");
    assert_null(wan_store_meta(s, "list"));
    wan_store_close(s);
    s = open_ok(make_gguf(folder, "d.gguf", dit_original, 2), PART_DIT);
    assert_string_equal(wan_store_layout(s), "gguf");
    assert_non_null(wan_store_find(s, "head.modulation"));
    wan_store_close(s);
    /* the content counts, not the name */
    s = open_ok(make_gguf(folder, "x.safetensors", dit_original, 2), PART_DIT);
    wan_store_close(s);
}

static void shards(void **state) {
    (void)state;
    static const char index[] =
        "{\"weight_map\":{\"head.modulation\":\"m-00001-of-00002.safetensors\","
        "\"blocks.0.self_attn.q.weight\":\"m-00002-of-00002.safetensors\"}}";
    make_weights(folder, "m-00001-of-00002.safetensors", dit_original,
                 2); /* one too many: left out */
    const char *second = make_weights(folder, "m-00002-of-00002.safetensors", dit_original + 1, 1);
    refuse(second, PART_DIT, WAN_E_FORMAT, "twice"); /* without index */
    const char *path = make_file(folder, "m.safetensors.index.json", index, strlen(index));
    const char *const any[] = {path, second, folder};
    for (size_t i = 0; i < 3; i++) {
        store *s = open_ok(any[i], PART_DIT);
        assert_int_equal(wan_store_count(s), 2);
        assert_string_equal(wan_store_find(s, "blocks.0.self_attn.q.weight")->file, second);
        assert_string_equal(wan_store_meta(s, "format"), "pt");
        wan_store_drop_pages(s);
        wan_store_close(s);
    }
    unlink(second);
    refuse(path, PART_DIT, WAN_E_IO, "m-00002-of-00002.safetensors: No such file");
}

static void numbered_without_index(void **state) {
    (void)state;
    make_weights(folder, "m-00001-of-00002.safetensors", dit_original, 1);
    refuse(folder, PART_DIT, WAN_E_IO, "m-00002-of-00002.safetensors: No such file");
    make_weights(folder, "m-00002-of-00002.safetensors", dit_original + 1, 1);
    store *s = open_ok(folder, PART_DIT);
    assert_int_equal(wan_store_count(s), 2);
    wan_store_drop_pages(s);
    wan_store_close(s);
}

static void wrong_part(void **state) {
    (void)state;
    static const spec lora[] = {{"blocks.0.self_attn.q.lora_A.weight", WAN_F32, 1, {1}}};
    static const spec other[] = {{"x", WAN_F32, 1, {1}}};
    const char *dit = make_weights(folder, "a.safetensors", dit_original, 2);
    refuse(dit, PART_TEXT, WAN_E_PARTS,
           "is wanted as the text encoder, but looks like a transformer");
    refuse(dit, PART_VAE, WAN_E_PARTS, "is wanted as the VAE, but looks like a transformer");
    const char *text = make_weights(folder, "b.safetensors", text_hf, 2);
    refuse(text, PART_DIT, WAN_E_PARTS, "looks like a text encoder");
    refuse(make_weights(folder, "l.safetensors", lora, 1), PART_DIT, WAN_E_FORMAT,
           "looks like a LoRA");
    refuse(make_weights(folder, "o.safetensors", other, 1), PART_DIT, WAN_E_FORMAT,
           "no part of a Wan model");
}

static void not_weights(void **state) {
    (void)state;
    refuse(make_file(folder, "w.pth", "PK\3\4rest", 8), PART_DIT, WAN_E_FORMAT, "pth2safetensors.py");
    refuse(make_file(folder, "w.bin", "PK\3\4rest", 8), PART_DIT, WAN_E_FORMAT,
           "PyTorch files are not read");
    refuse(make_file(folder, "w.safetensors", "GGUF\3\0\0\0", 8), PART_DIT, WAN_E_FORMAT,
           "number of tensors");
    refuse(make_file(folder, "w.gguf", "nonsense", 8), PART_DIT, WAN_E_FORMAT, "not a GGUF file");
    refuse(make_file(folder, "w.json", "{}", 2), PART_DIT, WAN_E_FORMAT, "weight_map");
    refuse("/nonexistent/x.safetensors", PART_DIT, WAN_E_IO, "No such file");
}

static void split_gguf(void **state) {
    (void)state;
    bytes b = {.n = 0};
    put(&b, "GGUF\3\0\0\0", 8);
    put_number(&b, 0, 8);
    put_number(&b, 1, 8);
    put_string(&b, "split.count");
    put_number(&b, 2, 4);
    put_number(&b, 3, 2);
    refuse(make_file(folder, "w-00001-of-00003.gguf", b.at, b.n), PART_DIT, WAN_E_FORMAT,
           "one of 3 pieces");
}

static void twins(void **state) {
    (void)state;
    static const spec both[] = {{"encoder.embed_tokens.weight", WAN_F32, 2, {4, 2}},
                                {"shared.weight", WAN_F32, 2, {4, 2}},
                                {"encoder.final_layer_norm.weight", WAN_F32, 1, {2}}};
    store *s = open_ok(make_weights(folder, "both.safetensors", both, 3), PART_TEXT);
    assert_string_equal(wan_store_find(s, "token_embedding.weight")->source, "shared.weight");
    assert_non_null(wan_store_find(s, "encoder.embed_tokens.weight"));
    wan_store_close(s);
    static const spec one[] = {{"encoder.embed_tokens.weight", WAN_F32, 2, {4, 2}}};
    s = open_ok(make_weights(folder, "one.safetensors", one, 1), PART_TEXT);
    assert_non_null(wan_store_find(s, "token_embedding.weight"));
    wan_store_close(s);
    static const spec clash[] = {{"model.head.modulation", WAN_F32, 1, {2}},
                                 {"head.modulation", WAN_F32, 1, {2}}};
    refuse(make_weights(folder, "clash.safetensors", clash, 2), PART_DIT, WAN_E_FORMAT,
           "holds head.modulation twice");
}

static void configs(void **state) {
    (void)state;
    const char *dit = make_weights(folder, "r/d/a.safetensors", dit_original, 2);
    store *s = open_ok(dit, PART_DIT);
    assert_null(wan_store_config(s));
    wan_store_close(s);
    make_file(folder, "r/config.json", "{\"dim\":3}", 9); /* above, but not a model's */
    s = open_ok(dit, PART_DIT);
    assert_null(wan_store_config(s));
    wan_store_close(s);
    make_file(folder, "r/config.json", "{\"model_type\":\"ti2v\",\"dim\":4}", 29);
    s = open_ok(dit, PART_DIT);
    assert_int_equal(json_integer_value(json_object_get(wan_store_config(s), "dim")), 4);
    wan_store_close(s);
    const char *diffusers = make_weights(folder, "r/e/a.safetensors", dit_diffusers, 2);
    s = open_ok(diffusers, PART_DIT);
    assert_null(wan_store_config(s)); /* a component's own or none */
    wan_store_close(s);
    const char *config = make_file(folder, "r/d/config.json", "{\"dim\":5}", 9);
    s = open_ok(dit, PART_DIT);
    assert_int_equal(json_integer_value(json_object_get(wan_store_config(s), "dim")), 5);
    wan_store_close(s);
    make_file(folder, "r/d/config.json", "{\"dim\":", 7);
    refuse(dit, PART_DIT, WAN_E_FORMAT, config);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(one_file),   TEST(gguf_file),   TEST(shards),     TEST(numbered_without_index),
        TEST(wrong_part), TEST(not_weights), TEST(split_gguf), TEST(twins),
        TEST(configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
