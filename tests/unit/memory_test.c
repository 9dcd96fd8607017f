/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/memory.h"

#define BYTES ((size_t)48 << 20)
/* What the kernel's counters and other threads' pages may be off by. */
#define SLACK ((size_t)4 << 20)

static void touch(void) {
    void *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    memset(p, 1, BYTES);
    munmap(p, BYTES);
}

static void peak_outlives_what_it_counted(void **state) {
    (void)state;
    uint64_t before = wan_memory_resident();
    assert_true(before > 0);
    touch();
    assert_true(wan_memory_peak() + SLACK >= before + BYTES);
    assert_true(wan_memory_resident() < before + BYTES / 2);
}

static void peak_restarts(void **state) {
    (void)state;
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f)
        skip(); /* a kernel without it: the peak goes on as it was */
    fclose(f);
    touch();
    uint64_t most = wan_memory_peak();
    wan_memory_peak_restart();
    uint64_t restarted = wan_memory_peak();
    assert_true(restarted + BYTES <= most + SLACK);
    assert_true(restarted + SLACK >= wan_memory_resident());
    touch();
    assert_true(wan_memory_peak() + SLACK >= restarted + BYTES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(peak_outlives_what_it_counted),
        cmocka_unit_test(peak_restarts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
