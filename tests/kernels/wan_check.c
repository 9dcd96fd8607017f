/* SPDX-License-Identifier: Apache-2.0 */
/* wan-check [--precision f32|bf16|int8] [--bench] [--filter TEXT] [--isa SET] [--threads N] [--list]
 * wan-check --device cuda[:N] [--precision f32|bf16|fp8] [--bench] [--filter TEXT]
 * Exit status 77: this machine has no such device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "check.h"
#include "checks.h"

#define DECLARE(name) void wan_check_##name(check *t);
EACH_CHECK(DECLARE, DECLARE, DECLARE, DECLARE, DECLARE, DECLARE, DECLARE)

typedef enum where { ANYWHERE, CPU_ONLY, DEVICE_ONLY } where;
/* Whose op it is. */
enum { TRANSFORMER = 1, AUTOENCODER = 2 };

static const struct {
    const char *name;
    void (*run)(check *t);
    where where;
    int part;
} checks[] = {
#define X(name) {#name, wan_check_##name, ANYWHERE, TRANSFORMER},
#define C(name) {#name, wan_check_##name, CPU_ONLY, TRANSFORMER},
#define D(name) {#name, wan_check_##name, DEVICE_ONLY, TRANSFORMER},
#define V(name) {#name, wan_check_##name, ANYWHERE, AUTOENCODER},
#define B(name) {#name, wan_check_##name, ANYWHERE, TRANSFORMER | AUTOENCODER},
#define DV(name) {#name, wan_check_##name, DEVICE_ONLY, AUTOENCODER},
#define DB(name) {#name, wan_check_##name, DEVICE_ONLY, TRANSFORMER | AUTOENCODER},
    EACH_CHECK(X, C, D, V, B, DV, DB)};

static const struct {
    const char *name, *device;
    unsigned have;
} sets[] = {
    {"scalar", "cpu scalar", CPU_SCALAR},
    {"avx2", "cpu avx2", CPU_AVX2},
    {"avxvnni", "cpu avxvnni", CPU_AVX2 | CPU_AVXVNNI},
    {"avx512", "cpu avx512", CPU_AVX2 | CPU_AVX512},
    {"avx512vnni", "cpu avx512vnni", CPU_AVX2 | CPU_AVX512 | CPU_VNNI},
    {"avx512bf16", "cpu avx512bf16", CPU_AVX2 | CPU_AVX512 | CPU_VNNI | CPU_BF16},
    {"amx", "cpu amx", CPU_AVX2 | CPU_AVX512 | CPU_VNNI | CPU_BF16 | CPU_AMX},
    {"amxint8", "cpu amxint8",
     CPU_AVX2 | CPU_AVX512 | CPU_VNNI | CPU_BF16 | CPU_AMX | CPU_AMX_INT8},
    {"neon", "cpu neon", CPU_NEON},
    {"neondot", "cpu neondot", CPU_NEON | CPU_NEON_DOT},
    {"neoni8mm", "cpu neoni8mm", CPU_NEON | CPU_NEON_DOT | CPU_NEON_I8MM},
    {"neonbf16", "cpu neonbf16", CPU_NEON | CPU_NEON_BF16},
};

enum { SCRATCH_MB = 384, BENCH_SCRATCH_MB = 3072, NO_DEVICE = 77 };

typedef struct options {
    bool bench;
    const char *filter, *isa, *device, *precision;
    int threads;
} options;

typedef struct totals {
    int passed, failed;
} totals;

/* wan_compute_open with a device that has been told which sets it may use. */
static void open_compute(compute *c, unsigned have, int threads, precision p) {
    error err = {0};
    void *device = wan_cpu_open(threads, have, &err);
    if (!device || wan_compute_on(c, &wan_backend_cpu, device, p, (size_t)SCRATCH_MB << 20, &err)) {
        fprintf(stderr, "wan-check: %s\n", err.message);
        exit(1);
    }
    c->owns_device = true;
}

/* Every check that `base` fits, which says what runs them. */
static void run_checks(const options *o, const check *base, where there, int parts, totals *sum) {
    compute *c = base->c;
    for (size_t i = 0; i < COUNT(checks); i++) {
        if ((o->filter && !strstr(checks[i].name, o->filter)) ||
            (checks[i].where != ANYWHERE && checks[i].where != there) || !(checks[i].part & parts))
            continue;
        check t = *base;
        t.name = checks[i].name;
        t.seed = i;
        size_t mark = wan_mark(c);
        checks[i].run(&t);
        if (t.k && t.k->rest)
            t.k->rest();
        expect(&t, c->err.code == WAN_OK, "%s", c->err.message);
        wan_error_clear(&c->err);
        wan_release(c, mark);
        wan_check_free(&t);
        if (t.failures)
            fprintf(stderr, "%s, %s: FAILED, %d wrong\n", t.name, t.device, t.failures);
        *(t.failures ? &sum->failed : &sum->passed) += 1;
    }
}

static void run_set(const options *o, size_t set, precision p, totals *sum) {
    compute c;
    cpu_kernels twin;
    char name[64];
    wan_cpu_kernels_init(&twin, CPU_SCALAR);
    open_compute(&c, sets[set].have, o->threads, p);
    snprintf(name, sizeof name, "%s%s%s", sets[set].device, p == WAN_PRECISION_F32 ? "" : " ",
             p == WAN_PRECISION_F32 ? "" : o->precision);
    double peak = o->bench ? c.be->peak(c.device, p).flops : 0;
    if (o->bench)
        printf("%s, %d threads: %.1f GFLOP/s of multiply-adds in registers\n", name, o->threads,
               peak * 1e-9);
    run_checks(o,
               &(check){.device = name,
                        .c = &c,
                        .rows = WAN_F32,
                        .loose = 1,
                        .threads = o->threads,
                        .have = sets[set].have,
                        .k = &wan_cpu_device(&c)->k,
                        .twin = &twin,
                        .bench = o->bench,
                        .peak = peak},
               CPU_ONLY, TRANSFORMER | AUTOENCODER, sum);
    wan_compute_close(&c);
}

static bool find_precision(const options *o, const backend *be, precision *p) {
    static const char *const names[] = {[WAN_PRECISION_F32] = "f32",
                                        [WAN_PRECISION_BF16] = "bf16",
                                        [WAN_PRECISION_INT8] = "int8",
                                        [WAN_PRECISION_FP8] = "fp8"};
    const char *name = o->precision ? o->precision : "f32";
    for (size_t i = 0; i < COUNT(names); i++)
        if (!strcmp(names[i], name) && be->precisions & 1u << i) {
            *p = (precision)i;
            return true;
        }
    fprintf(stderr, "wan-check: %s has no precision %s\n", be->name, name);
    return false;
}

/* A machine whose driver shows a GPU must have it usable. */
static int no_device(const options *o, const error *why) {
    bool driver = access("/dev/nvidiactl", F_OK) == 0;
    fprintf(stderr, "wan-check: %s: %s\n", driver ? "failed" : "skipped", why->message);
    return strncmp(o->device, "cuda", 4) ? 2 : driver ? 1 : NO_DEVICE;
}

static void run_device_checks(const options *o, compute *c, dtype rows, int parts, totals *sum) {
    char name[96];
    bool plain = rows == c->act;
    double begin = seconds();
    snprintf(name, sizeof name, "%s %s, rows of %s", o->device, o->precision ? o->precision : "f32",
             wan_dtype(rows)->name);
    run_checks(o,
               &(check){.device = name,
                        .c = c,
                        .rows = rows,
                        .loose = 4,
                        .threads = o->threads,
                        .bench = o->bench && plain},
               DEVICE_ONLY, parts, sum);
    printf("%s: %.1f s\n", name, seconds() - begin);
}

/* Which type a kernel has on the device is the one that the autoencoder's activations have. */
static dtype frames_type(const compute *c) {
    tensor kernel = wan_tensor(WAN_BF16, WAN_DIMS(1, 1, 3, 3), NULL);
    return c->be->placed_type ? c->be->placed_type(c->precision, kernel, WAN_USE_CONV) : c->act;
}

/* With activations of the device's type, then with rows of f32 and with the autoencoder's type
 * where those are others. */
static int run_device(const options *o, totals *sum) {
    error err = {0};
    int ordinal = 0;
    precision p = WAN_PRECISION_F32;
    compute c;
    const backend *be = wan_backend_find(o->device, &ordinal, &err);
    if (!be)
        return no_device(o, &err);
    if (!find_precision(o, be, &p))
        return 2;
    void *device = be->open(
        &(device_options){.threads = o->threads, .precision = p, .ordinal = ordinal}, &err);
    size_t scratch = (size_t)(o->bench ? BENCH_SCRATCH_MB : SCRATCH_MB) << 20;
    if (!device || wan_compute_on(&c, be, device, p, scratch, &err)) {
        fprintf(stderr, "wan-check: %s\n", err.message);
        return 1;
    }
    c.owns_device = true;
    dtype act = c.act, frames = frames_type(&c);
    run_device_checks(o, &c, act, frames == act ? TRANSFORMER | AUTOENCODER : TRANSFORMER, sum);
    if (act != WAN_F32)
        run_device_checks(o, &c, WAN_F32, TRANSFORMER, sum);
    if (frames != act) {
        c.act = c.conv_in = frames;
        run_device_checks(o, &c, frames, AUTOENCODER, sum);
    }
    wan_compute_close(&c);
    return 0;
}

static int usage(void) {
    fprintf(stderr, "usage: wan-check [--precision f32|bf16|int8] [--bench] [--filter TEXT] "
                    "[--isa SET] [--threads N] [--list]\n"
                    "       wan-check --device cuda[:N] [--precision f32|bf16|fp8] [--bench] "
                    "[--filter TEXT]\n");
    return 2;
}

/* Every instruction set of this machine's processor. */
static int run_sets(const options *o, totals *sum) {
    bool found = false;
    unsigned have = wan_cpu_detect();
    precision p = WAN_PRECISION_F32;
    if (!find_precision(o, &wan_backend_cpu, &p))
        return 2;
    if (o->threads == 1)
        wan_bench_one_thread();
    for (size_t i = 0; i < COUNT(sets); i++) {
        if (o->isa && strcmp(o->isa, sets[i].name))
            continue;
        found = true;
        if ((sets[i].have & have) == sets[i].have)
            run_set(o, i, p, sum);
        else
            printf("%s: not on this machine\n", sets[i].device);
    }
    return found ? 0 : usage();
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
        else if (i + 1 < argc && !strcmp(argv[i], "--device"))
            o.device = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--precision"))
            o.precision = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--isa"))
            o.isa = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--threads") && atoi(argv[i + 1]) > 0)
            o.threads = atoi(argv[++i]);
        else
            return usage();
    }
    totals sum = {0};
    int status = o.device && strcmp(o.device, "cpu") ? run_device(&o, &sum) : run_sets(&o, &sum);
    if (status)
        return status;
    printf("%d passed, %d failed\n", sum.passed, sum.failed);
    return sum.failed || !sum.passed;
}
