/* SPDX-License-Identifier: Apache-2.0 */
/* What "auto" makes of a model, on a CPU that claims to be fast in everything. */
#include "pipeline/precision.h"

#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static backend fast; /* the CPU's, but for what a test changes */
static char said[1024];
static int products;

static int all_by_speed(precision list[4]) {
    list[0] = WAN_PRECISION_INT8;
    list[1] = WAN_PRECISION_BF16;
    list[2] = WAN_PRECISION_F32;
    return 3;
}

static int none_by_speed(precision list[4]) {
    list[0] = WAN_PRECISION_F32;
    return 1;
}

/* Products of int8 come out 2 % too large, or as nothing at all. */
static float wrong_by;
static void wrong_linear(compute *c, tensor dst, tensor x, const linear *l, activation act) {
    wan_backend_cpu.op.linear(c, dst, x, l, act);
    products++;
    for (int64_t i = 0; c->precision == WAN_PRECISION_INT8 && i < wan_elements(dst); i++)
        ((float *)dst.data)[i] *= wrong_by;
}

static void listen(void *user, wan_log_level level, const char *message) {
    (void)user;
    (void)level;
    size_t n = strlen(said);
    snprintf(said + n, sizeof said - n, "%s\n", message);
}

static wan_model *open_model(const char *name) {
    error err = {0};
    const wan_model_options o = {.model = WAN_TEST_DATA "/golden/tiny-a/gguf",
                                 .device = "cpu",
                                 .precision = name,
                                 .threads = 1,
                                 .log = listen};
    said[0] = '\0';
    products = 0;
    wrong_by = 1;
    fast = wan_backend_cpu;
    fast.by_speed = all_by_speed;
    fast.op.linear = wrong_linear;
    wan_model *m = wan_model_begin(&o, &err);
    assert_non_null(m);
    m->be = &fast;
    return m;
}

static void the_fastest_that_is_near(void **state) {
    (void)state;
    error err = {0};
    wan_model *m = open_model("auto");
    assert_int_equal(wan_precision_settle(m, &err), WAN_OK);
    assert_int_equal(m->precision, WAN_PRECISION_INT8);
    assert_int_equal(m->alive.c.precision, WAN_PRECISION_INT8);
    assert_int_equal(m->dry.c.precision, WAN_PRECISION_INT8);
    assert_non_null(strstr(said, "precision int8: "));
    int looked = products;
    assert_true(looked > 0);
    assert_int_equal(wan_precision_settle(m, &err), WAN_OK); /* once is enough */
    assert_int_equal(products, looked);
    wan_model_close(m);
}

static void what_is_too_far_off_is_not_taken(void **state) {
    (void)state;
    static const float wrong[] = {1.02f, NAN, INFINITY};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        error err = {0};
        wan_model *m = open_model("auto");
        wrong_by = wrong[i];
        assert_int_equal(wan_precision_settle(m, &err), WAN_OK);
        assert_int_equal(m->precision, WAN_PRECISION_BF16);
        assert_non_null(strstr(said, "precision int8: products are up to "));
        assert_non_null(strstr(said, "precision bf16: products of this model"));
        wan_model_close(m);
    }
}

static void nothing_faster(void **state) {
    (void)state;
    error err = {0};
    wan_model *m = open_model("auto");
    fast.by_speed = none_by_speed;
    assert_int_equal(wan_precision_settle(m, &err), WAN_OK);
    assert_int_equal(m->precision, WAN_PRECISION_F32);
    assert_int_equal(products, 0);
    assert_non_null(strstr(said, "nothing is faster"));
    wan_model_close(m);
}

static void what_is_asked_for_is_not_looked_at(void **state) {
    (void)state;
    static const struct {
        const char *name;
        precision p;
    } asked[] = {{NULL, WAN_PRECISION_F32},
                 {"f32", WAN_PRECISION_F32},
                 {"bf16", WAN_PRECISION_BF16},
                 {"int8", WAN_PRECISION_INT8}};
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        error err = {0};
        wan_model *m = open_model(asked[i].name);
        assert_int_equal(wan_precision_settle(m, &err), WAN_OK);
        assert_int_equal(m->precision, asked[i].p);
        assert_int_equal(products, 0);
        wan_model_close(m);
    }
}

static void no_transformer_to_look_at(void **state) {
    (void)state;
    error err = {0};
    const wan_model_options o = {.vae = WAN_TEST_DATA "/golden/tiny-a/gguf/Wan2.2_VAE.safetensors",
                                 .device = "cpu",
                                 .precision = "auto"};
    wan_model *m = wan_model_begin(&o, &err);
    assert_non_null(m);
    fast = wan_backend_cpu;
    fast.by_speed = all_by_speed;
    m->be = &fast;
    assert_int_equal(wan_precision_settle(m, &err), WAN_E_USAGE);
    assert_non_null(strstr(err.message, "--precision auto looks at the transformer"));
    wan_model_close(m);
}

static void unknown_names(void **state) {
    (void)state;
    error err = {0};
    const wan_model_options o = {
        .model = WAN_TEST_DATA "/golden/tiny-a/gguf", .device = "cpu", .precision = "fp8"};
    assert_null(wan_model_begin(&o, &err));
    assert_int_equal(err.code, WAN_E_USAGE);
    assert_non_null(strstr(err.message, "precision fp8: device cpu computes in f32, bf16, int8"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_that_is_near),
        cmocka_unit_test(what_is_too_far_off_is_not_taken),
        cmocka_unit_test(nothing_faster),
        cmocka_unit_test(what_is_asked_for_is_not_looked_at),
        cmocka_unit_test(no_transformer_to_look_at),
        cmocka_unit_test(unknown_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
