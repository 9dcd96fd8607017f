/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tensor/tensor.h"

static void types_have_sizes(void **state) {
    (void)state;
    static const struct {
        dtype type;
        const char *name;
        int block, bytes;
    } want[] = {{WAN_F32, "F32", 1, 4},     {WAN_F16, "F16", 1, 2},      {WAN_BF16, "BF16", 1, 2},
                {WAN_Q8_0, "Q8_0", 32, 34}, {WAN_I64, "I64", 1, 8},      {WAN_BOOL, "BOOL", 1, 1},
                {WAN_Q4_0, "Q4_0", 32, 18}, {WAN_Q6_K, "Q6_K", 256, 210}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        const dtype_info *d = wan_dtype(want[i].type);
        assert_string_equal(d->name, want[i].name);
        assert_int_equal(d->block, want[i].block);
        assert_int_equal(d->bytes, want[i].bytes);
    }
    assert_true(wan_dtype(WAN_F32)->weight && wan_dtype(WAN_F16)->weight);
    assert_true(wan_dtype(WAN_BF16)->weight && wan_dtype(WAN_Q8_0)->weight);
    assert_false(wan_dtype(WAN_I64)->weight || wan_dtype(WAN_BOOL)->weight);
    for (int t = 0; t < WAN_DTYPES; t++) { /* no row of the table was forgotten */
        assert_non_null(wan_dtype((dtype)t)->name);
        assert_true(wan_dtype((dtype)t)->block > 0 && wan_dtype((dtype)t)->bytes > 0);
    }
}

static void views_count_bytes(void **state) {
    (void)state;
    tensor t = wan_tensor(WAN_Q8_0, WAN_DIMS(6, 64), NULL);
    assert_int_equal(wan_elements(t), 384);
    assert_int_equal(wan_bytes(t), 6 * 2 * 34);
    assert_int_equal(wan_bytes(wan_tensor(WAN_F16, WAN_DIMS(3, 5, 7), NULL)), 210);
    assert_int_equal(wan_elements(wan_tensor(WAN_F32, 0, NULL, NULL)), 1);
    assert_int_equal(wan_bytes(wan_tensor(WAN_F32, WAN_DIMS(0, 9), NULL)), 0);
    /* more elements than an int counts */
    assert_true(wan_elements(wan_tensor(WAN_F32, WAN_DIMS(75600, 5120, 6), NULL)) == 2322432000);
}

static void slices_start_at_rows(void **state) {
    (void)state;
    static char memory[6 * 68];
    tensor t = wan_tensor(WAN_Q8_0, WAN_DIMS(6, 64), memory);
    tensor s = wan_slice(t, 2, 3);
    assert_ptr_equal(s.data, memory + 2 * 68);
    assert_int_equal(s.dim[0], 3);
    assert_int_equal(s.dim[1], 64);
    assert_int_equal(t.dim[0], 6);
    assert_int_equal(wan_slice(t, 6, 0).dim[0], 0);
    t.data = NULL; /* a plan's tensor has no memory, and its slices neither */
    assert_null(wan_slice(t, 2, 3).data);
}

static void shapes_compare(void **state) {
    (void)state;
    float memory[24];
    tensor a = wan_tensor(WAN_F32, WAN_DIMS(4, 6), memory);
    tensor b = wan_reshape(a, WAN_DIMS(2, 3, 4));
    assert_ptr_equal(b.data, memory);
    assert_int_equal(b.rank, 3);
    assert_false(wan_same_shape(a, b));
    assert_true(wan_same_shape(a, wan_reshape(b, WAN_DIMS(4, 6))));
    assert_false(wan_same_shape(a, wan_reshape(b, WAN_DIMS(6, 4))));
}

static void shapes_print(void **state) {
    (void)state;
    char text[64], little[8];
    assert_string_equal(wan_shape_text(wan_tensor(WAN_F32, WAN_DIMS(3, 9, 64), NULL), text, 64),
                        "[3, 9, 64]");
    assert_string_equal(wan_shape_text(wan_tensor(WAN_F32, 0, NULL, NULL), text, 64), "[]");
    wan_shape_text(wan_tensor(WAN_F32, WAN_DIMS(123456, 7890123), NULL), little, sizeof little);
    assert_string_equal(little, "[123456");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(types_have_sizes),     cmocka_unit_test(views_count_bytes),
        cmocka_unit_test(slices_start_at_rows), cmocka_unit_test(shapes_compare),
        cmocka_unit_test(shapes_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
