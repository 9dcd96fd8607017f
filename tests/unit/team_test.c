/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <stdlib.h>

#include "base/team.h"

typedef struct tally {
    int64_t n, grain;
    atomic_int *times;  /* each item was done */
    atomic_int strange; /* pieces or workers out of range */
    int threads;
} tally;

static void count(void *arg, int64_t from, int64_t to, int worker) {
    tally *t = arg;
    if (from % t->grain || to > t->n || (to != t->n && to - from != t->grain) || worker < 0 ||
        worker >= t->threads)
        atomic_fetch_add(&t->strange, 1);
    for (int64_t i = from; i < to; i++)
        atomic_fetch_add(&t->times[i], 1);
}

static void every_item_once(void **state) {
    (void)state;
    static const int64_t sizes[][2] = {{0, 1},   {1, 1},   {2, 1},   {7, 3},
                                       {64, 64}, {65, 64}, {1000, 7}};
    for (int threads = 1; threads <= 5; threads += 2) {
        team *t = wan_team_open(threads, NULL);
        assert_non_null(t);
        assert_int_equal(wan_team_threads(t), threads);
        for (int round = 0; round < 300; round++)
            for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
                tally y = {.n = sizes[s][0], .grain = sizes[s][1], .threads = threads};
                y.times = calloc((size_t)y.n + 1, sizeof *y.times);
                wan_team_run(t, y.n, y.grain, count, &y);
                assert_int_equal(y.strange, 0);
                for (int64_t i = 0; i < y.n; i++)
                    assert_int_equal(y.times[i], 1);
                free(y.times);
            }
        wan_team_close(t);
    }
}

static void opens_and_closes(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++)
        wan_team_close(wan_team_open(4, NULL));
    wan_team_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_item_once),
                                       cmocka_unit_test(opens_and_closes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
