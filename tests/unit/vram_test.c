/* SPDX-License-Identifier: Apache-2.0 */
/* How stages are fitted into a device with memory of its own: a fake one, never opened. */
#include "pipeline/vram.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)
#define CONTEXT (10 * MIB)
#define SLOTS 4
#define PIECES (320 * MIB) /* what vram.c leaves of a limit */

static dtype placed_type(precision p, tensor host, weight_use use) {
    (void)p;
    (void)use;
    return host.type;
}

static const backend far = {.name = "far",
                            .own_memory = true,
                            .context = CONTEXT,
                            .stream_from = 1,
                            .stream_slots = SLOTS,
                            .tokens_together = 4096,
                            .pixels_together = 3072,
                            .placed_type = placed_type};

static wan_model *model;

static int setup(void **state) {
    error err = {0};
    (void)state;
    const wan_model_options o = {.model = WAN_TEST_DATA "/golden/tiny-a/gguf", .device = "cpu"};
    model = wan_model_begin(&o, &err);
    if (!model)
        return -1;
    model->be = &far;
    return wan_model_require(model, NEED_DIT | NEED_TEXT | NEED_VAE, &err);
}

static int teardown(void **state) {
    (void)state;
    wan_model_close(model);
    return 0;
}

static vram_fit fit(size_t limit, size_t scratch, const size_t resident[PARTS]) {
    error err = {0};
    vram_fit f;
    model->max_vram = limit ? limit + PIECES : 0;
    assert_int_equal(wan_vram_fit(model, PART_DIT, scratch, resident, &f, &err), WAN_OK);
    return f;
}

static size_t weights(size_t *streamable, size_t *largest) {
    error err = {0};
    size_t all = wan_model_placed(model, PART_DIT, &err);
    assert_int_equal(err.code, WAN_OK);
    *streamable = wan_dit_streamable(model->dry.dit, largest);
    assert_true(all >= *streamable && *streamable > SLOTS * *largest && *largest > 0);
    return all;
}

static void without_a_limit_all_stays(void **state) {
    (void)state;
    size_t streamable, largest, all = weights(&streamable, &largest);
    const size_t resident[PARTS] = {[PART_TEXT] = 7 * MIB};
    vram_fit f = fit(0, 5 * MIB, resident);
    assert_true(f.fits && !f.alone);
    assert_int_equal(f.resident, all);
    assert_int_equal(f.streamed, 0);
    assert_int_equal(f.peak, CONTEXT + 5 * MIB + 7 * MIB + all);
}

static void others_leave_first(void **state) {
    (void)state;
    size_t streamable, largest, all = weights(&streamable, &largest);
    const size_t resident[PARTS] = {[PART_TEXT] = 7 * MIB};
    vram_fit f = fit(CONTEXT + all, 0, resident);
    assert_true(f.fits && f.alone);
    assert_int_equal(f.resident, all);
    assert_int_equal(f.peak, CONTEXT + all);
    f = fit(CONTEXT + all + 7 * MIB, 0, resident);
    assert_true(f.fits && !f.alone);
}

static void then_weights_pass_through(void **state) {
    (void)state;
    size_t streamable, largest, all = weights(&streamable, &largest);
    const size_t none[PARTS] = {0};
    size_t limit = CONTEXT + all - 1;
    vram_fit f = fit(limit, 0, none);
    assert_true(f.fits && f.alone && f.streamed > 0);
    assert_int_equal(f.slots, SLOTS * largest);
    assert_int_equal(f.resident + f.streamed, all);
    assert_int_equal(f.peak, limit);
    assert_int_equal(CONTEXT + f.resident + f.slots, limit);
    /* The smallest that will do does, one byte less does not, and says so. */
    f = fit(f.least, 0, none);
    assert_true(f.fits && f.stay == 0 && f.streamed == streamable);
    f = fit(f.least - 1, 0, none);
    assert_false(f.fits);
    error err = {0};
    assert_int_equal(wan_vram_refuse(model, PART_DIT, &f, &err), WAN_E_MEMORY);
    assert_non_null(strstr(err.message, "transformer"));
}

static void the_host_has_no_limit(void **state) {
    (void)state;
    const size_t none[PARTS] = {0};
    const backend *was = model->be;
    model->be = &wan_backend_cpu;
    vram_fit f = fit(1, 5 * MIB, none);
    model->be = was;
    assert_true(f.fits && f.peak == 0);
}

static int attempts, good;

static wan_status attempt(void *job, bool *whole, error *err) {
    assert_int_equal(((wan_model *)job)->pieces, attempts++);
    *whole = attempts == good;
    return attempts == good + 10 ? wan_fail(err, WAN_E_INTERNAL, "enough") : WAN_OK;
}

static void settles_with_the_coarsest_cut(void **state) {
    error err = {0};
    (void)state;
    model->pieces = 3; /* of the job before */
    attempts = 0;
    good = 2;
    assert_int_equal(wan_vram_settle(model, attempt, model, &err), WAN_OK);
    assert_int_equal(attempts, 2);
    assert_int_equal(model->pieces, 1);
    attempts = 0;
    good = 100; /* never: the finest is left */
    assert_int_equal(wan_vram_settle(model, attempt, model, &err), WAN_OK);
    assert_int_equal(attempts, model->pieces + 1);
    attempts = 0;
    good = -9;
    assert_int_equal(wan_vram_settle(model, attempt, model, &err), WAN_E_INTERNAL);
    model->pieces = 0;
}

static void cuts_become_finer(void **state) {
    (void)state;
    compute c = wan_compute_plan(&far, WAN_PRECISION_F32);
    int64_t tokens = c.tokens_together, pixels = c.pixels_together;
    model->pieces = 2;
    wan_vram_cut(model, &c);
    model->pieces = 0;
    assert_true(c.tokens_together < tokens / 4 && c.tokens_together > 0);
    assert_true(c.pixels_together < pixels / 8 && c.pixels_together > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_all_stays),     cmocka_unit_test(others_leave_first),
        cmocka_unit_test(then_weights_pass_through),     cmocka_unit_test(the_host_has_no_limit),
        cmocka_unit_test(settles_with_the_coarsest_cut), cmocka_unit_test(cuts_become_finer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
