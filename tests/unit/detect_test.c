/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"

static void bf16_is_slow_on_intel_without_amx(void **state) {
    (void)state;
    const unsigned avx512 = CPU_AVX2 | CPU_AVX512 | CPU_VNNI, bf16 = avx512 | CPU_BF16;
    assert_int_equal(wan_cpu_weigh_bf16(avx512, true), avx512);
    assert_int_equal(wan_cpu_weigh_bf16(bf16, false), bf16);
    assert_int_equal(wan_cpu_weigh_bf16(bf16, true), bf16 | CPU_SLOW_BF16);
    assert_int_equal(wan_cpu_weigh_bf16(bf16 | CPU_AMX, true), bf16 | CPU_AMX);
}

/* Tables are filled with one set after the other, each on what the earlier ones left. */
static void sets_stand_on_others(void **state) {
    (void)state;
    unsigned have = wan_cpu_detect();
    assert_true(!(have & CPU_AMX_INT8) || have & CPU_AMX);
    assert_true(!(have & CPU_AMX) || have & CPU_BF16);
    assert_true(!(have & (CPU_BF16 | CPU_VNNI)) || have & CPU_AVX512);
    assert_true(!(have & (CPU_AVX512 | CPU_AVXVNNI)) || have & CPU_AVX2);
}

/* What is slow is still there, for those who ask for it and for checks. */
static void slow_bf16_is_not_chosen(void **state) {
    (void)state;
    unsigned have = wan_cpu_detect();
#if defined(__x86_64__)
    cpu_kernels plain, slow;
    wan_cpu_kernels_init(&plain, have & ~(unsigned)CPU_SLOW_BF16);
    wan_cpu_kernels_init(&slow, have | CPU_SLOW_BF16);
    assert_int_equal(plain.fast_bf16, (have & CPU_BF16) != 0);
    assert_false(slow.fast_bf16);
    assert_ptr_equal(plain.bf16_tile, slow.bf16_tile);
#endif
    precision list[4];
    int n = wan_backend_cpu.by_speed(list), bf16 = 0;
    for (int i = 0; i < n; i++)
        bf16 += list[i] == WAN_PRECISION_BF16;
    assert_int_equal(list[n - 1], WAN_PRECISION_F32);
    if (have & CPU_SLOW_BF16)
        assert_int_equal(bf16, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_is_slow_on_intel_without_amx),
        cmocka_unit_test(sets_stand_on_others),
        cmocka_unit_test(slow_bf16_is_not_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
