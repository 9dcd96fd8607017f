/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "backend/backend.h"

static void *opened(int threads) {
    error err = {0};
    void *d = wan_backend_cpu.open(&(device_options){.threads = threads}, &err);
    assert_non_null(d);
    return d;
}

/* Between an interpreter and anything built in this decade. */
static void rates_are_of_a_processor(void **state) {
    (void)state;
    void *d = opened(1);
    device_peak p = wan_backend_cpu.peak(d, WAN_PRECISION_F32);
    assert_true(p.flops > 1e7 && p.flops < 1e12);
    assert_true(p.bytes > 1e7 && p.bytes < 1e13);
    wan_backend_cpu.close(d);
}

/* What has no instructions of its own is computed with those of f32. */
static void narrow_numbers_are_not_slower(void **state) {
    (void)state;
    void *d = opened(2);
    double f32 = wan_backend_cpu.peak(d, WAN_PRECISION_F32).flops;
    assert_true(wan_backend_cpu.peak(d, WAN_PRECISION_BF16).flops > 0.4 * f32);
    assert_true(wan_backend_cpu.peak(d, WAN_PRECISION_INT8).flops > 0.4 * f32);
    wan_backend_cpu.close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_of_a_processor),
        cmocka_unit_test(narrow_numbers_are_not_slower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
