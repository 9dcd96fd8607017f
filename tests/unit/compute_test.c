/* SPDX-License-Identifier: Apache-2.0 */
/* Scratch, sticky errors, cancelling, tracing, and that a plan counts what a run does. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "tensor/ops.h"

static compute open_cpu(size_t scratch) {
    compute c;
    error err = {0};
    assert_int_equal(wan_compute_open(&c, &wan_backend_cpu, 2, scratch, &err), WAN_OK);
    return c;
}

static void backends_are_found(void **state) {
    (void)state;
    error err = {0};
    assert_ptr_equal(wan_backend_find("cpu", NULL, &err), &wan_backend_cpu);
    assert_non_null(wan_backend_find("auto", NULL, &err));
    assert_non_null(wan_backend_find(NULL, NULL, &err));
    assert_null(wan_backend_find("abacus", NULL, &err));
    assert_int_equal(err.code, WAN_E_DEVICE);
    assert_non_null(strstr(err.message, "abacus"));
}

static void no_threads_is_an_error(void **state) {
    (void)state;
    compute c;
    error err = {0};
    assert_int_equal(wan_compute_open(&c, &wan_backend_cpu, 0, 1000, &err), WAN_E_DEVICE);
    wan_compute_close(&c);
    wan_compute_close(NULL);
}

/* More than any address space: the device must be closed again. */
static void too_much_scratch_is_an_error(void **state) {
    (void)state;
    compute c;
    error err = {0};
    assert_int_equal(wan_compute_open(&c, &wan_backend_cpu, 1, SIZE_MAX / 2, &err), WAN_E_MEMORY);
    assert_null(c.device);
}

static void scratch_goes_and_comes(void **state) {
    (void)state;
    compute c = open_cpu(4096);
    tensor a = wan_new(&c, WAN_F32, WAN_DIMS(10, 10));
    assert_int_equal((uintptr_t)a.data % WAN_ARENA_ALIGN, 0);
    size_t mark = wan_mark(&c);
    tensor b = wan_new(&c, WAN_F32, WAN_DIMS(1));
    tensor d = wan_new(&c, WAN_F32, WAN_DIMS(1));
    assert_int_equal((char *)d.data - (char *)b.data, WAN_ARENA_ALIGN);
    wan_release(&c, mark);
    assert_ptr_equal(wan_new(&c, WAN_F32, WAN_DIMS(3)).data, b.data);
    float in[100], out[100] = {0};
    for (int i = 0; i < 100; i++)
        in[i] = (float)i;
    wan_upload(&c, a, in);
    wan_download(&c, out, a);
    assert_memory_equal(in, out, sizeof in);
    wan_compute_close(&c);
}

/* The first failure stays, and what comes after touches nothing. */
static void errors_stick(void **state) {
    (void)state;
    compute c = open_cpu(1024);
    tensor x = wan_new(&c, WAN_F32, WAN_DIMS(2, 4)), y = wan_new(&c, WAN_F32, WAN_DIMS(2, 4));
    float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1}, out[8] = {0};
    wan_upload(&c, x, ones);
    wan_upload(&c, y, ones);
    tensor big = wan_new(&c, WAN_F32, WAN_DIMS(1000, 1000));
    assert_null(big.data);
    assert_int_equal(big.dim[1], 1000);
    assert_int_equal(c.err.code, WAN_E_MEMORY);
    assert_non_null(strstr(c.err.message, "[1000, 1000]"));
    assert_non_null(strstr(c.err.message, "4000000"));
    wan_add(&c, x, y);
    wan_download(&c, out, x);
    for (int i = 0; i < 8; i++) {
        assert_true(out[i] == 0);
        assert_true(((float *)x.data)[i] == 1);
    }
    tensor z = wan_activate(&c, big, WAN_SILU); /* from no memory into no memory */
    assert_int_equal(z.dim[0], 1000);
    wan_compute_close(&c);
}

static int stop_at_third(void *user) {
    return ++*(int *)user >= 3;
}

static void cancelling_stops_between_ops(void **state) {
    (void)state;
    compute c = open_cpu(1024);
    int polls = 0;
    tensor x = wan_new(&c, WAN_F32, WAN_DIMS(1, 1));
    *(float *)x.data = 1;
    c.cancelled = stop_at_third;
    c.cancel_user = &polls;
    for (int i = 0; i < 5; i++)
        wan_add(&c, x, x);
    assert_true(*(float *)x.data == 4);
    assert_int_equal(c.err.code, WAN_E_CANCELLED);
    assert_int_equal(polls, 3); /* not asked again */
    wan_compute_close(&c);
}

typedef struct seen {
    char name[64];
    float first;
} seen;

static void look(void *user, compute *c, const char *name, tensor t) {
    seen *s = user;
    snprintf(s->name, sizeof s->name, "%s", name);
    wan_download(c, &s->first, wan_slice(t, 0, 1));
}

static void traces_are_named(void **state) {
    (void)state;
    compute c = open_cpu(1024);
    seen s = {{0}, 0};
    tensor x = wan_new(&c, WAN_F32, WAN_DIMS(3));
    ((float *)x.data)[0] = 7;
    wan_trace(&c, x, "block.%d", 12); /* nobody listens */
    c.trace = look;
    c.trace_user = &s;
    wan_trace(&c, x, "block.%d", 13);
    assert_string_equal(s.name, "block.13");
    assert_true(s.first == 7);
    wan_compute_close(&c);
}

/* A stretch of a model, on any backend. */
static void forward(compute *c) {
    size_t mark = wan_mark(c);
    static float weight[12 * 8];
    linear l = {.weight = wan_tensor(WAN_F32, WAN_DIMS(12, 8), weight)};
    tensor x = wan_new(c, WAN_F32, WAN_DIMS(5, 8));
    static const float zeros[40];
    wan_upload(c, x, zeros);
    tensor y = wan_linear(c, x, &l, WAN_GELU_TANH);
    attention a = {.heads = 3, .scale = 1, .last_key_count = 1};
    wan_add(c, y, wan_attention(c, y, y, y, &a));
    wan_release(c, mark);
}

static void plan_equals_run(void **state) {
    (void)state;
    compute dry = wan_compute_dry(), c = open_cpu(1 << 16);
    assert_true(wan_is_dry(&dry) && !wan_is_dry(&c));
    assert_false(wan_ready(&dry));
    forward(&dry);
    forward(&c);
    assert_int_equal(dry.err.code, WAN_OK);
    assert_int_equal(c.err.code, WAN_OK);
    assert_int_equal(dry.scratch.peak, c.scratch.peak);
    assert_int_equal(dry.scratch.peak, 3 * WAN_ARENA_ALIGN); /* 160, 240 and 240 bytes */
    assert_true(dry.done.flops == c.done.flops && dry.done.bytes == c.done.bytes);
    assert_true(dry.done.flops == 2.0 * 5 * 8 * 12 + 4.0 * 5 * 5 * 12);
    assert_int_equal(wan_compute_fixed_bytes(dry.be, 8), 0);
    assert_true(wan_compute_fixed_bytes(c.be, 8) == 4 * wan_compute_fixed_bytes(c.be, 2));
    wan_compute_close(&c);
}

/* In a plan: a norm's result has the type that the next convolution multiplies, and its history. */
static void codes_go_where_they_are_wanted(void **state) {
    (void)state;
    compute c = wan_compute_dry();
    tensor x = wan_new(&c, WAN_F32, WAN_DIMS(2, 4, 6, 32)),
           gain = wan_new(&c, WAN_F32, WAN_DIMS(32));
    conv plain = {.weight = wan_new(&c, WAN_F32, WAN_DIMS(16, 32, 3, 3, 3))}, coded = plain;
    coded.weight.type = WAN_F8_E4M3;
    coded.code = wan_code_scale(32, 1);
    assert_int_equal(wan_pixel_norm_for(&c, x, gain, &plain, false).type, WAN_F32);
    tensor codes = wan_pixel_norm_for(&c, x, gain, &coded, false);
    assert_int_equal(codes.type, WAN_F8_E4M3);
    history past = wan_history_for(&c, &coded, 4, 6), other = wan_history_for(&c, &plain, 4, 6);
    assert_int_equal(past.frames.type, WAN_F8_E4M3);
    assert_int_equal(other.frames.type, WAN_F32);
    assert_int_equal(past.frames.dim[0], 2);
    assert_int_equal(past.frames.dim[3], 32);
    tensor y = wan_conv3d(&c, codes, &coded, &past);
    assert_int_equal(y.type, WAN_F32);
    assert_int_equal(y.dim[3], 16);
    assert_int_equal(past.held, 2);
    assert_int_equal(c.err.code, WAN_OK);
}

/* On a CPU bf16 is what convolutions multiply, and only until exact operands are asked for; on a
 * device with half activations those stay. */
static void types_of_a_precision(void **state) {
    (void)state;
    static const backend halves = {.half_activations = true};
    compute c = wan_compute_plan(&wan_backend_cpu, WAN_PRECISION_BF16);
    assert_int_equal(c.act, WAN_F32);
    assert_int_equal(c.conv_in, WAN_BF16);
    tensor x = wan_new(&c, WAN_F32, WAN_DIMS(2, 4, 6, 32)),
           gain = wan_new(&c, WAN_F32, WAN_DIMS(32));
    conv w = {.weight = wan_new(&c, WAN_F32, WAN_DIMS(16, 32, 3, 3, 3))};
    assert_int_equal(wan_history_for(&c, &w, 4, 6).frames.type, WAN_BF16);
    assert_int_equal(wan_pixel_norm_for(&c, x, gain, &w, false).type, WAN_BF16);
    assert_int_equal(wan_pixel_norm_for(&c, x, gain, &w, true).type, WAN_BF16);
    size_t used = c.scratch.used;
    assert_int_equal(wan_conv3d(&c, x, &w, NULL).type, WAN_F32);
    assert_true(c.scratch.used - used ==
                sizeof(float) * 2 * 4 * 6 * 16); /* what rounding took is back */
    wan_compute_f16(&c);
    wan_compute_exact(&c);
    assert_int_equal(c.precision, WAN_PRECISION_F32);
    assert_int_equal(c.conv_in, WAN_F32);
    compute h = wan_compute_plan(&halves, WAN_PRECISION_BF16);
    assert_int_equal(h.conv_in, WAN_BF16);
    wan_compute_f16(&h);
    wan_compute_exact(&h);
    assert_int_equal(h.precision, WAN_PRECISION_BF16);
    assert_true(h.act == WAN_F16 && h.conv_in == WAN_F16);
}

static void nothing_passes_the_largest_code(void **state) {
    (void)state;
    for (int64_t n = 16; n <= 1024; n += 16)
        for (float gain = 1e-3f; gain < 1e3f; gain *= 1.7f) {
            float most = wan_code_scale(n, gain) * sqrtf((float)n) * gain;
            assert_true(most <= 448 && most > 223.9f);
        }
    assert_true(wan_code_scale(1024, 1) == 8);
    assert_true(wan_code_scale(256, 0) > 0 && isfinite(wan_code_scale(256, 0)));
    assert_true(wan_code_scale(256, INFINITY) > 0 && wan_code_scale(256, NAN) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_go_where_they_are_wanted),
        cmocka_unit_test(types_of_a_precision),
        cmocka_unit_test(nothing_passes_the_largest_code),
        cmocka_unit_test(backends_are_found),
        cmocka_unit_test(no_threads_is_an_error),
        cmocka_unit_test(too_much_scratch_is_an_error),
        cmocka_unit_test(scratch_goes_and_comes),
        cmocka_unit_test(errors_stick),
        cmocka_unit_test(cancelling_stops_between_ops),
        cmocka_unit_test(traces_are_named),
        cmocka_unit_test(plan_equals_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
