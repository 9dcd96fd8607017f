/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/solver.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { VALUES = 4, STEPS_MAX = 1000 };

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static solver *open_or_fail(wan_sampler which, int steps, double shift, int64_t n) {
    error err = {0};
    solver *s = wan_solver_open(which, steps, shift, n, &err);
    if (!s)
        fail_msg("%s", err.message);
    return s;
}

/* Scalar examples of sampling.md 3.4: v(x, t) = 0.5 x - 0.3 + 0.2 t / 1000, x = 1 at first, 6
 * steps, shift 5. */
static const struct example {
    wan_sampler which;
    float t[6], x[6];
} examples[] = {
    {WAN_SAMPLER_UNIPC_OFFICIAL,
     {999, 961, 908, 833, 713, 499},
     {0.9846143f, 0.9647744f, 0.9382518f, 0.9004484f, 0.8447416f, 0.7337229f}},
    {WAN_SAMPLER_DPMPP,
     {1000, 961, 909, 833, 714, 500},
     {0.9846154f, 0.9644489f, 0.9374582f, 0.8992881f, 0.8430425f, 0.7322819f}},
    {WAN_SAMPLER_UNIPC,
     {999, 961, 909, 833, 714, 501},
     {0.9846412f, 0.9648061f, 0.9383573f, 0.9006839f, 0.8450776f, 0.7333747f}},
};

static void test_scalar_examples(void **state) {
    (void)state;
    for (size_t k = 0; k < COUNT(examples); k++) {
        const struct example *e = &examples[k];
        solver *s = open_or_fail(e->which, 6, 5.0, 1);
        float x = 1.0f;
        for (int i = 0; i < 6; i++) {
            assert_float_equal(wan_solver_timesteps(s)[i], e->t[i], 0.0f);
            float v = 0.5f * x - 0.3f + 0.2f * wan_solver_timesteps(s)[i] / 1000.0f;
            wan_solver_step(s, i, &x, &v);
            assert_float_equal(x, e->x[i], 3e-7f);
        }
        wan_solver_close(s);
    }
}

/* Same operations in the same order as tools/golden/make_sample_data.py. */
static void network(const float *x, float t, float *v) {
    float time = t * 0.001f;
    for (int j = 0; j < VALUES; j++)
        v[j] = (0.5f * x[j] - 0.05f * x[j] * x[j] * x[j]) - 0.3f + 0.2f * time;
}

static void read_row(FILE *f, float *row, int n) {
    for (int i = 0; i < n; i++)
        assert_int_equal(fscanf(f, "%f", &row[i]), 1);
}

static void expect_row(const char *what, const float *got, const float *want, int n,
                       float tolerance) {
    for (int i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= tolerance))
            fail_msg("%s, value %d: %.9g instead of %.9g", what, i, (double)got[i],
                     (double)want[i]);
}

/* Whole loops that diffusers ran in float32: its values stay below 4 and are rounded about three
 * times a step. */
static void test_diffusers(void **state) {
    (void)state;
    FILE *f = fopen(WAN_TEST_DATA "/data/sample/solver.txt", "r");
    assert_non_null(f);
    char name[20], what[60];
    int steps, cases = 0;
    double shift;
    while (fscanf(f, "%19s%d%lf", name, &steps, &shift) == 3) {
        float row[STEPS_MAX + 1];
        solver *s = open_or_fail(wan_sampler_find(name, NULL), steps, shift, VALUES);
        snprintf(what, sizeof what, "%s, %d steps, shift %g", name, steps, shift);
        assert_in_range(steps, 1, STEPS_MAX);
        assert_int_equal(wan_solver_steps(s), steps);
        read_row(f, row, steps + 1);
        expect_row(what, wan_solver_sigmas(s), row, steps + 1, 0.0f);
        read_row(f, row, steps);
        expect_row(what, wan_solver_timesteps(s), row, steps, 0.0f);
        float x[VALUES] = {1.0f, -0.75f, 0.3125f, 2.5f}, v[VALUES];
        for (int i = 0; i < steps; i++) {
            network(x, wan_solver_timesteps(s)[i], v);
            wan_solver_step(s, i, x, v);
        }
        read_row(f, row, VALUES);
        expect_row(what, x, row, VALUES, 3.0f * (float)steps * 0x1p-23f);
        wan_solver_close(s);
        cases++;
    }
    fclose(f);
    assert_int_equal(cases, 28);
}

/* Whatever the schedule, the last UniPC or DPM++ step lands on the clean estimate itself. */
static void test_last_step_is_the_clean_estimate(void **state) {
    (void)state;
    static const wan_sampler which[] = {WAN_SAMPLER_UNIPC, WAN_SAMPLER_UNIPC_OFFICIAL,
                                        WAN_SAMPLER_DPMPP};
    for (size_t k = 0; k < COUNT(which); k++)
        for (int steps = 1; steps <= 3; steps++) {
            solver *s = open_or_fail(which[k], steps, 5.0, 1);
            float x = 0.75f, v = 0.5f, clean = 0.0f;
            for (int i = 0; i < steps; i++) {
                clean = (float)((double)x - (double)wan_solver_sigmas(s)[i] * (double)v);
                wan_solver_step(s, i, &x, &v);
            }
            assert_float_equal(x, clean, 0.0f);
            wan_solver_close(s);
        }
}

static void test_turbo(void **state) {
    (void)state;
    static const struct {
        wan_sampler which;
        float sigma[5], t[4];
    } want[] = {
        {WAN_SAMPLER_TURBO, {1.0f, 0.9375f, 0.833333313f, 0.625f, 0.0f}, {1000, 936, 832, 624}},
        {WAN_SAMPLER_TURBO_PUBLISHED,
         {1.0f, 0.7502576709f, 0.4997186363f, 0.2500000298f, 0.0f},
         {1000, 752, 500, 250}},
    };
    for (size_t k = 0; k < COUNT(want); k++) {
        solver *s = open_or_fail(want[k].which, 4, 3.0, 2);
        expect_row("turbo levels", wan_solver_sigmas(s), want[k].sigma, 5, 0.0f);
        expect_row("turbo times", wan_solver_timesteps(s), want[k].t, 4, 0.0f);
        assert_true(wan_solver_renoises(s));
        float x[2] = {2.0f, -1.0f};
        const float v[2] = {0.5f, 4.0f}, noise[2] = {-3.0f, 8.0f};
        wan_solver_step(s, 0, x, v);
        assert_float_equal(x[0], 1.5f, 0.0f); /* sigma is 1: x - v */
        assert_float_equal(x[1], -5.0f, 0.0f);
        wan_solver_renoise(s, 0, x, noise);
        float sigma = want[k].sigma[1];
        assert_float_equal(x[0], (1.0f - sigma) * 1.5f - sigma * 3.0f, 1e-6f);
        assert_float_equal(x[1], (1.0f - sigma) * -5.0f + sigma * 8.0f, 1e-6f);
        wan_solver_close(s);
    }
    solver *s = open_or_fail(WAN_SAMPLER_EULER, 4, 3.0, 2);
    assert_false(wan_solver_renoises(s));
    wan_solver_close(s);
}

/* Neighbouring times that round to the same integer must not confuse anyone, nor levels that nearly
 * touch. */
static void test_many_steps(void **state) {
    (void)state;
    for (int w = WAN_SAMPLER_UNIPC; w <= WAN_SAMPLER_DPMPP; w++) {
        solver *s = open_or_fail((wan_sampler)w, STEPS_MAX, 8.0, 1);
        float x = 1.0f;
        for (int i = 0; i < STEPS_MAX; i++) {
            float v = x; /* dx = x dsigma: from 1 at sigma 1 to exp(-1) at 0 */
            wan_solver_step(s, i, &x, &v);
        }
        float last =
            wan_solver_sigmas(s)[STEPS_MAX - 1]; /* this far the last step is a straight line */
        assert_float_equal(x, expf(-1.0f), 0.5f * last * last + 1e-3f);
        wan_solver_close(s);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        wan_sampler which;
        int steps;
        double shift;
        const char *says;
    } bad[] = {
        {WAN_SAMPLER_UNIPC, 0, 5.0, "between 1 and 1000, not 0"},
        {WAN_SAMPLER_EULER, -3, 5.0, "not -3"},
        {WAN_SAMPLER_DPMPP, 1001, 5.0, "not 1001"},
        {WAN_SAMPLER_UNIPC, 4, 0.0, "greater than 0, not 0"},
        {WAN_SAMPLER_UNIPC, 4, -1.0, "not -1"},
        {WAN_SAMPLER_EULER, 4, NAN, "not nan"},
        {WAN_SAMPLER_DPMPP, 4, INFINITY, "not inf"},
        {WAN_SAMPLER_UNIPC, 50, 1e9, "too large"},
        {WAN_SAMPLER_EULER, 50, 1e9, "too large"},
        {WAN_SAMPLER_DPMPP, 50, 1e-60, "too small"},
        {WAN_SAMPLER_TURBO, 8, 5.0, "exactly 4 steps, not 8"},
        {WAN_SAMPLER_TURBO_PUBLISHED, 3, 5.0, "turbo-published takes exactly 4 steps, not 3"},
        {WAN_SAMPLER_DEFAULT, 4, 5.0, "sampler 0"},
        {(wan_sampler)99, 4, 5.0, "sampler 99"},
    };
    for (size_t k = 0; k < COUNT(bad); k++) {
        error err = {0};
        assert_null(wan_solver_open(bad[k].which, bad[k].steps, bad[k].shift, 8, &err));
        assert_int_equal(err.code, WAN_E_USAGE);
        if (!strstr(err.message, bad[k].says))
            fail_msg("'%s' does not say '%s'", err.message, bad[k].says);
    }
    wan_solver_close(NULL);
}

static void test_no_memory(void **state) {
    (void)state;
    error err = {0};
    assert_null(wan_solver_open(WAN_SAMPLER_UNIPC, 4, 5.0, INT64_C(1) << 57, &err));
    assert_int_equal(err.code, WAN_E_MEMORY);
}

static void test_names_and_sizes(void **state) {
    (void)state;
    for (int w = WAN_SAMPLER_UNIPC; w <= WAN_SAMPLER_TURBO_PUBLISHED; w++)
        assert_int_equal(wan_sampler_find(wan_sampler_name((wan_sampler)w), NULL), w);
    error err = {0};
    assert_int_equal(wan_sampler_find("ddim", &err), WAN_SAMPLER_DEFAULT);
    assert_int_equal(err.code, WAN_E_USAGE);
    assert_non_null(strstr(err.message, "'ddim'"));
    wan_error_clear(&err);
    wan_sampler_find("default", &err); /* not a name a user may give */
    assert_int_equal(err.code, WAN_E_USAGE);
    assert_int_equal(wan_solver_bytes(WAN_SAMPLER_UNIPC, 100), 1200);
    assert_int_equal(wan_solver_bytes(WAN_SAMPLER_DPMPP, 100), 400);
    assert_int_equal(wan_solver_bytes(WAN_SAMPLER_EULER, 100), 0);
    assert_int_equal(wan_solver_bytes(WAN_SAMPLER_TURBO, 100), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalar_examples),
        cmocka_unit_test(test_diffusers),
        cmocka_unit_test(test_last_step_is_the_clean_estimate),
        cmocka_unit_test(test_turbo),
        cmocka_unit_test(test_many_steps),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_names_and_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
