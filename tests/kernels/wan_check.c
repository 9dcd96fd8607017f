/* SPDX-License-Identifier: Apache-2.0 */
/* wan-check [--bench] [--filter TEXT] [--isa scalar|avx2|avx512] [--threads N] [--list] */
#include <unistd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "check.h"
#include "checks.h"

#define DECLARE(name) void wan_check_##name(check *t);
EACH_CHECK(DECLARE)

static const struct {
    const char *name;
    void (*run)(check *t);
} checks[] = {
#define ROW(name) {#name, wan_check_##name},
    EACH_CHECK(ROW)};

static const struct {
    const char *name, *device;
    unsigned have;
} sets[] = {
    {"scalar", "cpu scalar", CPU_SCALAR},
    {"avx2", "cpu avx2", CPU_AVX2},
    {"avx512", "cpu avx512", CPU_AVX2 | CPU_AVX512},
};

enum { SCRATCH_MB = 384 };

typedef struct options {
    bool bench;
    const char *filter, *isa;
    int threads;
} options;

typedef struct totals {
    int passed, failed;
} totals;

/* wan_compute_open with a device that has been told which sets it may use. */
static void open_compute(compute *c, unsigned have, int threads) {
    size_t bytes = (size_t)SCRATCH_MB << 20;
    *c = (compute){.be = &wan_backend_cpu, .planned = &wan_backend_cpu};
    c->device = wan_cpu_open(threads, have, &c->err);
    if (c->device)
        c->scratch = (arena){.base = c->be->alloc(c->device, bytes, &c->err), .size = bytes};
    if (c->err.code) {
        fprintf(stderr, "wan-check: %s\n", c->err.message);
        exit(1);
    }
}

#if defined(__x86_64__)
static void peak_piece(void *arg, int64_t from, int64_t to, int worker) {
    (void)worker;
    for (int64_t i = from; i < to; i++)
        ((double *)arg)[i] = wan_cpu_detect() & CPU_AVX512 ? wan_peak_avx512()
                             : wan_cpu_detect() & CPU_AVX2 ? wan_peak_avx2()
                                                           : 0;
}
#endif

/* Multiply-adds of all cores together, each measured while the others work. */
static double measure_peak(int threads) {
    double total = 0;
#if defined(__x86_64__)
    double *each = calloc((size_t)threads, sizeof *each);
    team *t = wan_team_open(threads, NULL);
    if (t && each)
        wan_team_run(t, threads, 1, peak_piece, each);
    for (int i = 0; each && i < threads; i++)
        total += each[i];
    wan_team_close(t);
    free(each);
#endif
    (void)threads;
    return total;
}

static void run_set(const options *o, size_t set, double peak, totals *sum) {
    compute c;
    cpu_kernels twin;
    wan_cpu_kernels_init(&twin, CPU_SCALAR);
    open_compute(&c, sets[set].have, o->threads);
    for (size_t i = 0; i < COUNT(checks); i++) {
        if (o->filter && !strstr(checks[i].name, o->filter))
            continue;
        check t = {.device = sets[set].device,
                   .name = checks[i].name,
                   .c = &c,
                   .threads = o->threads,
                   .have = sets[set].have,
                   .k = &wan_cpu_device(&c)->k,
                   .twin = &twin,
                   .bench = o->bench,
                   .peak = peak,
                   .seed = i};
        size_t mark = wan_mark(&c);
        checks[i].run(&t);
        expect(&t, c.err.code == WAN_OK, "%s", c.err.message);
        wan_error_clear(&c.err);
        wan_release(&c, mark);
        wan_check_free(&t);
        if (t.failures)
            fprintf(stderr, "%s, %s: FAILED, %d wrong\n", t.name, t.device, t.failures);
        *(t.failures ? &sum->failed : &sum->passed) += 1;
    }
    wan_compute_close(&c);
}

static int usage(void) {
    fprintf(stderr, "usage: wan-check [--bench] [--filter TEXT] [--isa scalar|avx2|avx512] "
                    "[--threads N] [--list]\n");
    return 2;
}

static int list(void) {
    for (size_t i = 0; i < COUNT(checks); i++)
        puts(checks[i].name);
    return 0;
}

int main(int argc, char **argv) {
    options o = {.threads = (int)sysconf(_SC_NPROCESSORS_ONLN)};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench"))
            o.bench = true;
        else if (!strcmp(argv[i], "--list"))
            return list();
        else if (i + 1 < argc && !strcmp(argv[i], "--filter"))
            o.filter = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--isa"))
            o.isa = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--threads") && atoi(argv[i + 1]) > 0)
            o.threads = atoi(argv[++i]);
        else
            return usage();
    }
    totals sum = {0};
    bool found = false;
    unsigned have = wan_cpu_detect();
    if (o.threads == 1)
        wan_bench_one_thread();
    double peak = o.bench ? measure_peak(o.threads) : 0;
    if (o.bench)
        printf("%d threads, peak of multiply-adds in registers %.1f GFLOP/s\n", o.threads,
               peak * 1e-9);
    for (size_t i = 0; i < COUNT(sets); i++) {
        if (o.isa && strcmp(o.isa, sets[i].name))
            continue;
        found = true;
        if ((sets[i].have & have) == sets[i].have)
            run_set(&o, i, peak, &sum);
        else
            printf("%s: not on this machine\n", sets[i].device);
    }
    if (!found)
        return usage();
    printf("%d passed, %d failed\n", sum.passed, sum.failed);
    return sum.failed || !sum.passed;
}
