/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine can do at most: multiply-adds on registers alone, and a copy through memory. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/cpu.h"

enum {
    SUMS = 12,      /* independent ones, so that no multiply-add waits for another */
    STEPS = 20000,  /* of a piece: about a tenth of a millisecond */
    PIECES = 8,     /* for each thread */
    COPY = 8 << 20, /* bytes of a piece that is copied */
    COPIES = 16     /* pieces: more than caches hold */
};

/* STEPS rounds of SUMS instructions; the result only keeps the loop alive. */
typedef float (*burst)(void);

typedef struct rate {
    burst run;
    double work; /* multiply-adds of a burst */
} rate;

/* With so many multiply-adds in an instruction, all lanes and all terms of a lane. */
static rate of_lanes(burst run, int lanes) {
    return (rate){run, (double)lanes * SUMS * STEPS};
}

static float burst_scalar(void) {
    float s[SUMS], x = 0.999f, y = 0.001f, all = 0;
    for (int i = 0; i < SUMS; i++)
        s[i] = (float)i;
    for (int n = 0; n < STEPS; n++)
        for (int i = 0; i < SUMS; i++)
#ifdef __FP_FAST_FMAF
            s[i] = __builtin_fmaf(s[i], x, y);
#else
            s[i] = s[i] * x + y;
#endif
    for (int i = 0; i < SUMS; i++)
        all += s[i];
    return all;
}

#if defined(__x86_64__)
/* Sums in registers 0 to 11 and operands in 12 and 13, all zero: their values make no difference to
 * the time.  Assembly, so that nothing leaves the registers whatever the compiler. */
#define SUM(instruction) ".irp n,0,1,2,3,4,5,6,7,8,9,10,11\n\t" instruction "\n\t.endr"
#define REGISTERS                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14"
#define BURST(name, instruction)                                                                   \
    static float name(void) {                                                                      \
        __asm__ volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13\n\t"                              \
                         "vpxor %%xmm\\n, %%xmm\\n, %%xmm\\n\n\t.endr" ::                          \
                             : REGISTERS);                                                         \
        for (int i = 0; i < STEPS; i++)                                                            \
            __asm__ volatile(SUM(instruction)::: REGISTERS);                                       \
        __asm__ volatile("vzeroupper" ::: REGISTERS);                                              \
        return 0;                                                                                  \
    }

BURST(burst_avx2, "vfmadd231ps %%ymm12, %%ymm13, %%ymm\\n")
/* Bytes in pairs to 16 bits, those in pairs to 32 bits: what there is without VNNI. */
#define WIDEN(r)                                                                                   \
    "vpmaddubsw %%" r "12, %%" r "13, %%" r "14\n\t"                                               \
    "vpmaddwd %%" r "12, %%" r "14, %%" r "14\n\t"                                                 \
    "vpaddd %%" r "14, %%" r "\\n, %%" r "\\n"
BURST(burst_int8_avx2, WIDEN("ymm"))
BURST(burst_int8_avx512, WIDEN("zmm"))
BURST(burst_avxvnni, "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm\\n")
BURST(burst_avx512, "vfmadd231ps %%zmm12, %%zmm13, %%zmm\\n")
BURST(burst_bf16, "vdpbf16ps %%zmm12, %%zmm13, %%zmm\\n")
BURST(burst_vnni, "vpdpbusd %%zmm12, %%zmm13, %%zmm\\n")

enum { TILE_STEPS = STEPS / 4, TILE_SUMS = 4, TILE_WORK = 16 * 16 * 32 };

static void begin_tiles(void) {
    static const uint8_t shapes[64] = {
        [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64,
        [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16,
    };
    __asm__ volatile("ldtilecfg %0\n\t"
                     "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\t"
                     "tilezero %%tmm3\n\ttilezero %%tmm4\n\ttilezero %%tmm5"
                     :
                     : "m"(shapes));
}

/* Four tiles of sums, the zeros in two others multiplied. */
#define TILE_BURST(name, instruction)                                                              \
    static float name(void) {                                                                      \
        begin_tiles();                                                                             \
        for (int i = 0; i < TILE_STEPS; i++)                                                       \
            __asm__ volatile(".irp n,0,1,2,3\n\t" instruction                                      \
                             " %%tmm5, %%tmm4, %%tmm\\n\n\t.endr" ::);                             \
        __asm__ volatile("tilerelease");                                                           \
        return 0;                                                                                  \
    }

TILE_BURST(burst_amx, "tdpbf16ps")
TILE_BURST(burst_amx_int8, "tdpbssd")

/* A precision without instructions of its own is computed with those of f32. */
static rate fastest(precision p) {
    unsigned have = wan_cpu_detect();
    if (p == WAN_PRECISION_BF16 && have & CPU_AMX)
        return (rate){burst_amx, (double)TILE_STEPS * TILE_SUMS * TILE_WORK};
    if (p == WAN_PRECISION_BF16 && have & CPU_BF16)
        return of_lanes(burst_bf16, 32);
    if (p == WAN_PRECISION_INT8 && have & CPU_AMX_INT8)
        return (rate){burst_amx_int8, 2.0 * TILE_STEPS * TILE_SUMS * TILE_WORK};
    if (p == WAN_PRECISION_INT8 && have & CPU_VNNI)
        return of_lanes(burst_vnni, 64);
    if (p == WAN_PRECISION_INT8 && have & CPU_AVXVNNI)
        return of_lanes(burst_avxvnni, 32);
    if (p == WAN_PRECISION_INT8 && have & CPU_AVX512)
        return of_lanes(burst_int8_avx512, 64);
    if (p == WAN_PRECISION_INT8 && have & CPU_AVX2)
        return of_lanes(burst_int8_avx2, 32);
    return have & CPU_AVX512 ? of_lanes(burst_avx512, 16)
           : have & CPU_AVX2 ? of_lanes(burst_avx2, 8)
                             : of_lanes(burst_scalar, 1);
}
#else
static rate fastest(precision p) {
    (void)p;
    return of_lanes(burst_scalar, 1);
}
#endif

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_burst(void *arg, int64_t from, int64_t to, int worker) {
    const rate *r = arg;
    (void)worker;
    for (; from < to; from++) {
        volatile float sink = r->run();
        (void)sink;
    }
}

typedef struct copy_job {
    char *dst, *src;
} copy_job;

static void run_copy(void *arg, int64_t from, int64_t to, int worker) {
    const copy_job *j = arg;
    (void)worker;
    memcpy(j->dst + from * COPY, j->src + from * COPY, (size_t)(to - from) * COPY);
}

/* The shortest of several runs: other jobs only ever take time away. */
static double best_time(team *t, int attempts, int64_t pieces, team_piece f, void *arg) {
    double best = INFINITY;
    for (int i = 0; i < attempts; i++) {
        double from = seconds();
        wan_team_run(t, pieces, 1, f, arg);
        best = fmin(best, seconds() - from);
    }
    return best;
}

device_peak wan_cpu_peak(void *device, precision p) {
    const cpu_device *d = device;
    error none = {0};
    rate r = fastest(p);
    const size_t bytes = (size_t)COPIES * COPY;
    int64_t pieces = (int64_t)PIECES * d->threads;
    device_peak peak = {.flops = 2.0 * r.work * (double)pieces /
                                 best_time(d->team, 12, pieces, run_burst, &r)};
    copy_job j = {.dst = wan_backend_cpu.alloc(device, 2 * bytes, &none)};
    if (j.dst) {
        j.src = j.dst + bytes;
        memset(j.src, 1, bytes);
        peak.bytes = 2.0 * (double)bytes / best_time(d->team, 5, COPIES, run_copy, &j);
        wan_backend_cpu.free(device, j.dst, 2 * bytes);
    }
    return peak;
}
