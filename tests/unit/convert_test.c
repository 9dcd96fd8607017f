/* SPDX-License-Identifier: Apache-2.0 */
#include "files.h"

#include <math.h>

#include "weights/convert.h"

static float from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Every f16 against its definition. */
static void all_halves(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t stored = (uint16_t)h;
        float got;
        assert_true(wan_to_f32(wan_tensor(WAN_F16, WAN_DIMS(1), &stored), &got));
        int e = h >> 10 & 31, m = h & 1023;
        if (e == 31 && m) {
            assert_true(isnan(got));
            continue;
        }
        double want = e == 31 ? INFINITY : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        assert_true(got == (float)(h >> 15 ? -want : want) && !!signbit(got) == h >> 15);
    }
}

static void others_at_odd_addresses(void **state) {
    (void)state;
    char raw[32] = {0};
    float got[2];
    double d[2] = {0.1, -3e300};
    memcpy(raw + 1, d, sizeof d);
    assert_true(wan_to_f32(wan_tensor(WAN_F64, WAN_DIMS(2), raw + 1), got));
    assert_true(got[0] == 0.1f && got[1] == -INFINITY);
    float f[2] = {1.5f, -0.0f};
    memcpy(raw + 3, f, sizeof f);
    assert_true(wan_to_f32(wan_tensor(WAN_F32, WAN_DIMS(2), raw + 3), got));
    assert_memory_equal(got, f, sizeof f);
    uint16_t b[2] = {0x3fc0, 0xff80};
    memcpy(raw + 1, b, sizeof b);
    assert_true(wan_to_f32(wan_tensor(WAN_BF16, WAN_DIMS(2), raw + 1), got));
    assert_true(got[0] == 1.5f && got[1] == from_bits(0xff800000));
    assert_false(wan_to_f32(wan_tensor(WAN_Q8_0, WAN_DIMS(32), raw), got));
    assert_false(wan_to_f32(wan_tensor(WAN_I32, WAN_DIMS(1), raw), got));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_halves),
                                       cmocka_unit_test(others_at_odd_addresses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
