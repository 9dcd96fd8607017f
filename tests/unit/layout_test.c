/* SPDX-License-Identifier: Apache-2.0 */
#include "weightfiles.h"

#include "weights/layout.h"

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

static const spec of[PARTS] = {[PART_DIT] = {"head.modulation", WAN_F32, 1, {2}},
                               [PART_TEXT] = {"token_embedding.weight", WAN_F32, 1, {2}},
                               [PART_VAE] = {"decoder.upsamples.0.x", WAN_F32, 1, {2}}};

static const char *weights(const char *file, part which) {
    return make_weights(folder, file, &of[which], 1);
}

static void expect_found(const char *root, part which, const char *relative) {
    char want[1024], got[4096];
    error err = {0};
    snprintf(want, sizeof want, "%s/%s", folder, relative);
    if (wan_layout_find(root, which, got, sizeof got, &err) != WAN_OK)
        fail_msg("%s", err.message);
    assert_string_equal(got, want);
}

static void expect_not_found(const char *root, part which, wan_status code,
                             const char *part_of_message) {
    char got[4096];
    error err = {0};
    assert_int_equal(wan_layout_find(root, which, got, sizeof got, &err), code);
    expect_error(&err, code, part_of_message);
}

static void expect_tokenizer(const char *relative) {
    char want[1024], got[4096];
    error err = {0};
    snprintf(want, sizeof want, "%s/%s", folder, relative);
    assert_int_equal(wan_layout_find_tokenizer(folder, got, sizeof got, &err), WAN_OK);
    assert_string_equal(got, want);
}

static void diffusers(void **state) {
    (void)state;
    weights("transformer/diffusion_pytorch_model.safetensors", PART_DIT);
    weights("text_encoder/model-00001-of-00002.safetensors", PART_TEXT);
    weights("text_encoder/model-00002-of-00002.safetensors", PART_TEXT);
    make_file(folder, "text_encoder/model.safetensors.index.json", "{}", 2); /* found, not read */
    weights("vae/diffusion_pytorch_model.safetensors", PART_VAE);
    make_file(folder, "tokenizer/spiece.model", "x", 1);
    expect_found(folder, PART_DIT, "transformer/diffusion_pytorch_model.safetensors");
    expect_found(folder, PART_TEXT, "text_encoder/model.safetensors.index.json");
    expect_found(folder, PART_VAE, "vae/diffusion_pytorch_model.safetensors");
    expect_tokenizer("tokenizer/spiece.model");
}

/* Plainly numbered files count where no index speaks for them. */
static void mlx(void **state) {
    (void)state;
    weights("transformer/0.safetensors", PART_DIT);
    weights("transformer/1.safetensors", PART_DIT);
    make_file(folder, "transformer/model.safetensors.index.json", "{}", 2);
    weights("vae/0.safetensors", PART_VAE);
    expect_found(folder, PART_DIT, "transformer/model.safetensors.index.json");
    expect_found(folder, PART_VAE, "vae/0.safetensors");
}

static void original(void **state) {
    (void)state;
    weights("diffusion_pytorch_model-00001-of-00002.safetensors", PART_DIT);
    weights("diffusion_pytorch_model-00002-of-00002.safetensors", PART_DIT);
    make_file(folder, "diffusion_pytorch_model.safetensors.index.json", "{}",
              2); /* found, not read */
    weights("models_t5_umt5-xxl-enc-bf16.safetensors", PART_TEXT);
    weights("Wan2.2_VAE.safetensors", PART_VAE);
    make_file(folder, "google/umt5-xxl/spiece.model", "x", 1);
    expect_found(folder, PART_DIT, "diffusion_pytorch_model.safetensors.index.json");
    expect_found(folder, PART_TEXT, "models_t5_umt5-xxl-enc-bf16.safetensors");
    expect_found(folder, PART_VAE, "Wan2.2_VAE.safetensors");
    expect_tokenizer("google/umt5-xxl/spiece.model");
}

static void loose_files(void **state) {
    (void)state;
    const char *dit = make_gguf(folder, "Wan2.2-TI2V-5B-Q8_0.gguf", &of[PART_DIT], 1);
    static const spec text = {"token_embd.weight", WAN_F32, 1, {2}};
    make_gguf(folder, "umt5-xxl-encoder-Q8_0.gguf", &text, 1);
    weights("VAE/Wan2.2_VAE.safetensors", PART_VAE);
    make_file(folder, "spiece.model", "x", 1);
    make_file(folder, "README.md", "x", 1);
    make_file(folder, ".hidden.safetensors", "x", 1);
    const char *const roots[] = {folder, dit};
    for (int i = 0; i < 2; i++) {
        expect_found(roots[i], PART_DIT, "Wan2.2-TI2V-5B-Q8_0.gguf");
        expect_found(roots[i], PART_TEXT, "umt5-xxl-encoder-Q8_0.gguf");
        expect_found(roots[i], PART_VAE, "VAE/Wan2.2_VAE.safetensors");
    }
    expect_tokenizer("spiece.model");
}

static void names_that_say_nothing(void **state) {
    (void)state;
    weights("1.safetensors", PART_VAE);
    weights("2.safetensors", PART_DIT);
    weights("3.safetensors", PART_TEXT);
    make_file(folder, "4.safetensors", "broken", 6);
    expect_found(folder, PART_VAE, "1.safetensors");
    expect_found(folder, PART_DIT, "2.safetensors");
    expect_found(folder, PART_TEXT, "3.safetensors");
    unlink(weights("3.safetensors", PART_TEXT));
    expect_not_found(folder, PART_TEXT, WAN_E_FORMAT, "/4.safetensors: has 6 bytes");
}

static void doubts(void **state) {
    (void)state;
    weights("dit-a.safetensors", PART_DIT);
    weights("dit-b.safetensors", PART_TEXT); /* the name fits, the tensors do not */
    expect_found(folder, PART_DIT, "dit-a.safetensors");
    weights("dit-c.safetensors", PART_DIT);
    expect_not_found(folder, PART_DIT, WAN_E_USAGE, "dit-a.safetensors and ");
    expect_not_found(folder, PART_DIT, WAN_E_USAGE,
                     "dit-c.safetensors both look like the transformer");
    weights("wan-lora.safetensors", PART_DIT); /* a name that cannot be meant */
    unlink(weights("dit-c.safetensors", PART_DIT));
    expect_found(folder, PART_DIT, "dit-a.safetensors");
}

static void broken_but_named(void **state) {
    (void)state;
    make_file(folder, "dit.safetensors", "broken", 6);
    weights("other.safetensors", PART_DIT);
    expect_found(folder, PART_DIT, "dit.safetensors"); /* whose opening will tell */
}

static void named_file_counts(void **state) {
    (void)state;
    const char *bad = make_file(folder, "mine.safetensors", "broken", 6);
    weights("dit.safetensors", PART_DIT);
    expect_not_found(bad, PART_DIT, WAN_E_FORMAT, "mine.safetensors: has 6 bytes");
    expect_found(weights("mine.safetensors", PART_DIT), PART_DIT, "mine.safetensors");
}

static void nothing_there(void **state) {
    (void)state;
    expect_not_found(folder, PART_DIT, WAN_E_IO, "holds no transformer");
    expect_not_found("/nonexistent/root", PART_DIT, WAN_E_IO, "No such file");
    weights("vae.safetensors", PART_VAE);
    expect_not_found(folder, PART_DIT, WAN_E_IO, "vae.safetensors looks like a VAE");
    make_file(folder, "models_t5_umt5-xxl-enc-bf16.pth", "PK\3\4", 4);
    expect_not_found(folder, PART_TEXT, WAN_E_FORMAT, "models_t5_umt5-xxl-enc-bf16.pth: PyTorch");
    error err = {0};
    char path[64];
    assert_int_equal(wan_layout_find_tokenizer(folder, path, sizeof path, &err), WAN_E_IO);
    expect_error(&err, WAN_E_IO, "no tokenizer");
}

static void tokenizer_in_the_weights(void **state) {
    (void)state;
    static const spec both[] = {{"token_embedding.weight", WAN_F32, 1, {2}},
                                {"spiece_model", WAN_U8, 1, {3}}};
    char path[4096];
    error err = {0};
    weights("t5.safetensors", PART_TEXT);
    assert_int_equal(wan_layout_find_tokenizer(folder, path, sizeof path, &err), WAN_E_IO);
    make_weights(folder, "t5.safetensors", both, 2);
    expect_tokenizer("t5.safetensors");
    make_file(folder, "spiece.model", "x", 1);
    expect_tokenizer("spiece.model");
}

static void plain_files(void **state) {
    (void)state;
    char path[4096];
    const char *a = make_file(folder, "x/a", "1", 1);
    make_file(folder, "x/b", "1", 1);
    assert_true(wan_layout_file(folder, "x/b", path, sizeof path));
    assert_true(wan_layout_file(a, "b", path, sizeof path));
    assert_non_null(strstr(path, "/x/b"));
    assert_true(wan_layout_beside(a, "../x/a", path, sizeof path));
    assert_false(wan_layout_file(folder, "x", path, sizeof path)); /* a folder */
    assert_false(wan_layout_file(folder, "y", path, sizeof path));
    assert_false(wan_layout_file(folder, "x/b", path, 5));
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(diffusers),
        TEST(original),
        TEST(mlx),
        TEST(loose_files),
        TEST(names_that_say_nothing),
        TEST(doubts),
        TEST(broken_but_named),
        TEST(nothing_there),
        TEST(named_file_counts),
        TEST(plain_files),
        TEST(tokenizer_in_the_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
