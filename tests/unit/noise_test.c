/* SPDX-License-Identifier: Apache-2.0 */
#include "sample/noise.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void draw_one(uint64_t seed, float *dst, int64_t n) {
    noise_generator g;
    wan_noise_seed(&g, seed);
    wan_noise_draw(&g, dst, n);
}

static void expect_words(const float *got, const uint32_t *want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, &got[i], sizeof word);
        assert_int_equal(word, want[i]);
    }
}

/* Vectors of sampling.md 9.2, seed 42. */
static void test_sixteen_values(void **state) {
    (void)state;
    static const uint32_t want[16] = {0x3ff6a529, 0x3fbe5f53, 0x3f669567, 0xc006c0db,
                                      0x3f2dacd5, 0xbf9e0591, 0xbd306786, 0xbfcd65ba,
                                      0xbf408bf0, 0x3fd3095b, 0xbec8f2f6, 0xbfb3a966,
                                      0xbf3a566e, 0xbf0f36d1, 0xbf44d2a0, 0x3f432f9f};
    float got[16];
    draw_one(42, got, 16);
    expect_words(got, want, 16);
}

static void test_tail_overlaps_the_block_before(void **state) {
    (void)state;
    static const uint32_t want[17] = {0x3ff6a529, 0xbe236d85, 0xbefeaae4, 0x3ee111d8, 0xbf4214e2,
                                      0x3f8a0650, 0x3f4d0144, 0x3fd71e93, 0x3eb63345, 0x3fa5f12f,
                                      0x3f1c4788, 0x3faad8b0, 0xbe6d2eed, 0x3d2b0c00, 0xbe80ce7a,
                                      0x3f5c1fb0, 0xbe9e9482};
    float got[17];
    draw_one(42, got, 17);
    expect_words(got, want, 17);
}

static void test_few_values(void **state) {
    (void)state;
    static const float want[8] = {0.3367f,  0.1288f,  0.2345f, 0.2303f,
                                  -1.1229f, -0.1863f, 2.2082f, -0.6380f};
    float got[8];
    draw_one(42, got, 8);
    for (int i = 0; i < 8; i++)
        assert_float_equal(got[i], want[i], 1e-4f);
}

static void test_nothing_is_drawn_for_no_values(void **state) {
    (void)state;
    noise_generator a, b;
    wan_noise_seed(&a, 3);
    wan_noise_seed(&b, 3);
    wan_noise_draw(&a, NULL, 0);
    assert_memory_equal(&a, &b, sizeof a);
}

/* The half of a pair that waits belongs to the generator it was drawn from, not to a new seed. */
static void test_seeding_forgets(void **state) {
    (void)state;
    noise_generator g;
    float one, first[3], again[3];
    draw_one(9, first, 3);
    wan_noise_seed(&g, 9);
    wan_noise_draw(&g, &one, 1);
    wan_noise_seed(&g, 9);
    wan_noise_draw(&g, again, 3);
    assert_memory_equal(first, again, sizeof first);
}

static uint64_t fnv(const void *data, size_t bytes) {
    const unsigned char *b = data;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h;
}

/* Draws of many sizes from one generator, against hashes of what torch drew. */
static void test_torch(void **state) {
    (void)state;
    FILE *f = fopen(WAN_TEST_DATA "/data/sample/noise.txt", "r");
    assert_non_null(f);
    uint64_t seed;
    int count, lines = 0;
    while (fscanf(f, "%" SCNu64 "%d", &seed, &count) == 2) {
        noise_generator g;
        wan_noise_seed(&g, seed);
        for (int i = 0; i < count; i++) {
            size_t n;
            uint64_t want;
            assert_int_equal(fscanf(f, "%zu%" SCNx64, &n, &want), 2);
            float *got = malloc(n * sizeof *got);
            assert_non_null(got);
            wan_noise_draw(&g, got, (int64_t)n);
            if (fnv(got, n * sizeof *got) != want)
                fail_msg("seed %" PRIu64 ": draw %d of %zu values differs from torch", seed, i, n);
            free(got);
        }
        lines++;
    }
    fclose(f);
    assert_int_equal(lines, 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sixteen_values),
        cmocka_unit_test(test_tail_overlaps_the_block_before),
        cmocka_unit_test(test_few_values),
        cmocka_unit_test(test_nothing_is_drawn_for_no_values),
        cmocka_unit_test(test_seeding_forgets),
        cmocka_unit_test(test_torch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
