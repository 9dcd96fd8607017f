/* SPDX-License-Identifier: Apache-2.0 */
/* The stretch against Pillow's: checksums over odd sizes, and the golden pictures. */
#include "base/resize.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "io/safetensors.h"

#define DATA WAN_TEST_DATA "/data/media/"

static uint64_t fnv(const uint8_t *p, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* As in tools/make_pictures.py: a quarter of the samples are 0 or 255. */
static void mixed(uint8_t *out, size_t n, uint32_t state) {
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (uint8_t)(state >> 20 & 3 ? state >> 24 : 255 * (state >> 23 & 1));
    }
}

static void same_as_pillow(void **state) {
    (void)state;
    FILE *f = fopen(DATA "resize.txt", "r");
    assert_non_null(f);
    int sw, sh, dw, dh, cases = 0;
    uint64_t want;
    while (fscanf(f, "%d %d %d %d %" SCNx64, &sw, &sh, &dw, &dh, &want) == 5) {
        size_t n = (size_t)sw * (size_t)sh * 3, m = (size_t)dw * (size_t)dh * 3;
        uint8_t *src = malloc(n), *dst = malloc(m);
        assert_true(src && dst);
        mixed(src, n, (uint32_t)cases++);
        assert_int_equal(wan_resize_lanczos(src, sw, sh, dst, dw, dh, NULL), WAN_OK);
        if (fnv(dst, m) != want)
            fail_msg("%dx%d to %dx%d is not what Pillow makes of it", sw, sh, dw, dh);
        free(dst);
        free(src);
    }
    fclose(f);
    assert_int_equal(cases, 18);
}

/* image.N u8 [H, W, 3] and pixels.N f32 [3, h, w] in [-1, 1], from the reference pipeline. */
static void same_as_golden(void **state) {
    (void)state;
    error err = {0};
    safetensors *s = wan_safetensors_open(DATA "resize.safetensors", &err);
    assert_string_equal(err.message, "");
    for (int i = 0; i < 2; i++) {
        char name[32];
        snprintf(name, sizeof name, "image.%d", i);
        const tensor image = wan_safetensors_find(s, name)->t;
        snprintf(name, sizeof name, "pixels.%d", i);
        const tensor pixels = wan_safetensors_find(s, name)->t;
        int h = (int)pixels.dim[1], w = (int)pixels.dim[2], plane = h * w;
        uint8_t *got = malloc((size_t)plane * 3);
        assert_non_null(got);
        assert_int_equal(
            wan_resize_lanczos(image.data, (int)image.dim[1], (int)image.dim[0], got, w, h, &err),
            WAN_OK);
        const float *want = pixels.data;
        for (int at = 0; at < plane * 3; at++)
            assert_int_equal(got[at], lrintf((want[at % 3 * plane + at / 3] + 1) * 127.5f));
        free(got);
    }
    wan_safetensors_close(s);
}

/* A flat picture stays flat: the weights sum to one after rounding to integers, at any ratio. */
static void flat_stays_flat(void **state) {
    (void)state;
    enum { SIDE = 97 };
    static uint8_t src[SIDE * SIDE * 3], dst[SIDE * SIDE * 3];
    memset(src, 201, sizeof src);
    for (int side = 1; side <= SIDE; side += 3) {
        assert_int_equal(wan_resize_lanczos(src, SIDE, SIDE / 2, dst, side, SIDE - side + 1, NULL),
                         WAN_OK);
        for (int i = 0; i < side * (SIDE - side + 1) * 3; i++)
            assert_int_equal(dst[i], 201);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_pillow),
        cmocka_unit_test(same_as_golden),
        cmocka_unit_test(flat_stays_flat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
