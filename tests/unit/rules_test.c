/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include "pipeline/convert.h"
#include "pipeline/rules.h"

static void expect_rule(rules *r, const char *name, bool found, dtype want) {
    dtype t = WAN_U8;
    assert_int_equal(wan_rules_find(r, name, &t), found);
    if (found)
        assert_int_equal(t, want);
}

static void last_one_counts(void **state) {
    (void)state;
    error err = {0};
    rules *r = wan_rules_open("*=f16, blocks.*.ffn.*=Q4_K ,blocks.0.*=keep,,vae.*=fp8", &err);
    assert_non_null(r);
    expect_rule(r, "head.head.weight", true, WAN_F16);
    expect_rule(r, "blocks.12.ffn.0.weight", true, WAN_Q4_K);
    expect_rule(r, "blocks.0.ffn.0.weight", true, WAN_DTYPES);
    assert_string_equal(wan_rules_unused(r), "vae.*");
    expect_rule(r, "vae.conv1.weight", true, WAN_F8_E4M3);
    assert_null(wan_rules_unused(r));
    wan_rules_close(r);
    expect_rule(NULL, "anything", false, WAN_F16);
}

static void from_a_file(void **state) {
    (void)state;
    static const char text[] = "# of blocks\r\n\n blocks.? = int8 \r\nhead.[ab]=bf16";
    char folder[256];
    error err = {0};
    make_folder(folder);
    rules *r = wan_rules_open(make_file(folder, "rules", text, strlen(text)), &err);
    assert_non_null(r);
    expect_rule(r, "blocks.7", true, WAN_I8);
    expect_rule(r, "blocks.77", false, WAN_F16);
    expect_rule(r, "head.b", true, WAN_BF16);
    wan_rules_close(r);
    assert_null(wan_rules_open(make_file(folder, "nul", "a=f16\n\0b=f16", 12), &err));
    expect_error(&err, WAN_E_FORMAT, "is no text");
    remove_folder(folder);
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
        wan_status code;
    } row[] = {
        {"no-such-file", "no file no-such-file", WAN_E_IO},
        {"a=f16,b", "rule 2 is \"b\"", WAN_E_USAGE},
        {"=f16", "PATTERN=TYPE", WAN_E_USAGE},
        {"a=", "rule 1, type ", WAN_E_USAGE},
        {"a=q4_k_m", "type q4_k_m", WAN_E_USAGE}, /* a recipe is no type */
        {"a=u8", "type u8", WAN_E_USAGE},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        error err = {0};
        assert_null(wan_rules_open(row[i].text, &err));
        expect_error(&err, row[i].code, row[i].why);
    }
}

static dtype type_of(const char *recipe, part p, const char *name, int64_t rows, int64_t cols) {
    return wan_recipe_type(recipe, p, name, wan_tensor(WAN_F32, WAN_DIMS(rows, cols), NULL));
}

static void recipes(void **state) {
    (void)state;
    assert_int_equal(type_of("q4_k_m", PART_DIT, "blocks.3.self_attn.q.weight", 512, 512), WAN_Q4_K);
    assert_int_equal(type_of("Q4_K_M", PART_DIT, "blocks.3.cross_attn.v.weight", 512, 512), WAN_Q6_K);
    assert_int_equal(type_of("q4_k_m", PART_DIT, "blocks.3.ffn.2.weight", 512, 512), WAN_Q6_K);
    assert_int_equal(type_of("q4_k", PART_DIT, "blocks.3.ffn.0.weight", 512, 96), WAN_Q8_0);
    assert_int_equal(type_of("fp8", PART_DIT, "blocks.3.ffn.0.weight", 512, 99), WAN_F8_E4M3);
    assert_int_equal(type_of("int8", PART_TEXT, "token_embedding.weight", 512, 99), WAN_I8);
    static const char *const spared[] = {"head.head.weight", "text_embedding.0.weight",
                                         "time_projection.1.weight", "blocks.0.self_attn.q.bias",
                                         "patch_embedding.weight", "blocks.0.modulation"};
    for (size_t i = 0; i < sizeof spared / sizeof *spared; i++)
        assert_int_equal(type_of("q8_0", PART_DIT, spared[i], 512, 512), WAN_DTYPES);
    assert_int_equal(type_of("q8_0", PART_VAE, "blocks.0.ffn.0.weight", 512, 512), WAN_DTYPES);
    assert_int_equal(type_of("keep", PART_DIT, "blocks.3.ffn.0.weight", 512, 512), WAN_DTYPES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_one_counts),
        cmocka_unit_test(from_a_file),
        cmocka_unit_test(refused),
        cmocka_unit_test(recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
