/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine can do at most: multiply-adds on registers alone, and a copy through memory.
 * The function for each instruction set carries the set's name as an attribute, so that one file
 * and one loop hold them all. */
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

/* Runs STEPS rounds of SUMS multiply-adds; the result only keeps the loop alive. */
typedef float (*burst)(void);

typedef struct rate {
    burst run;
    int lanes; /* multiply-adds of one instruction, all lanes and all terms of a lane */
} rate;

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
#include <immintrin.h>

#define FOR(set) __attribute__((target(set))) static float
/* SUMS rounds, and nothing leaves the registers. */
#define ROUNDS(vector, zero, add)                                                                  \
    vector s[SUMS];                                                                                \
    for (int i = 0; i < SUMS; i++)                                                                 \
        s[i] = zero;                                                                               \
    for (int n = 0; n < STEPS; n++)                                                                \
        for (int i = 0; i < SUMS; i++)                                                             \
            s[i] = add;

FOR("avx2,fma") burst_avx2(void) {
    const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
    ROUNDS(__m256, _mm256_set1_ps((float)i), _mm256_fmadd_ps(s[i], x, y))
    for (int i = 1; i < SUMS; i++)
        s[0] = _mm256_add_ps(s[0], s[i]);
    return _mm256_cvtss_f32(s[0]);
}

/* Bytes in pairs to 16 bits, those in pairs to 32 bits: what there is without VNNI. */
FOR("avx2") burst_int8_avx2(void) {
    const __m256i x = _mm256_set1_epi8(3), one = _mm256_set1_epi16(1);
    ROUNDS(__m256i, _mm256_set1_epi8((char)i),
           _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_maddubs_epi16(x, s[i]), one)))
    for (int i = 1; i < SUMS; i++)
        s[0] = _mm256_add_epi32(s[0], s[i]);
    return (float)_mm256_extract_epi32(s[0], 0);
}

FOR("avx512f") burst_avx512(void) {
    const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
    ROUNDS(__m512, _mm512_set1_ps((float)i), _mm512_fmadd_ps(s[i], x, y))
    for (int i = 1; i < SUMS; i++)
        s[0] = _mm512_add_ps(s[0], s[i]);
    return _mm512_cvtss_f32(s[0]);
}

FOR("avx512f,avx512bw,avx512vl,avx512bf16") burst_bf16(void) {
    const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3c00); /* 2^-7 */
    ROUNDS(__m512, _mm512_set1_ps((float)i), _mm512_dpbf16_ps(s[i], x, x))
    for (int i = 1; i < SUMS; i++)
        s[0] = _mm512_add_ps(s[0], s[i]);
    return _mm512_cvtss_f32(s[0]);
}

FOR("avx512f,avx512vnni") burst_vnni(void) {
    __m512i s[SUMS], x = _mm512_set1_epi8(3);
    for (int i = 0; i < SUMS; i++)
        s[i] = _mm512_set1_epi32(i);
    for (int n = 0; n < STEPS; n++)
        for (int i = 0; i < SUMS; i++) /* gcc moves sums about around the intrinsic */
            __asm__("vpdpbusd %1, %1, %0" : "+v"(s[i]) : "v"(x));
    for (int i = 1; i < SUMS; i++)
        s[0] = _mm512_add_epi32(s[0], s[i]);
    return (float)_mm_cvtsi128_si32(_mm512_castsi512_si128(s[0]));
}

/* A precision without instructions of its own is computed with those of f32. */
static rate fastest(precision p) {
    unsigned have = wan_cpu_detect();
    bool wide = have & CPU_AVX512;
    if (wide && p == WAN_PRECISION_BF16 && __builtin_cpu_supports("avx512bf16"))
        return (rate){burst_bf16, 32};
    if (wide && p == WAN_PRECISION_INT8 && __builtin_cpu_supports("avx512vnni"))
        return (rate){burst_vnni, 64};
    if (have & CPU_AVX2 && p == WAN_PRECISION_INT8)
        return (rate){burst_int8_avx2, 32};
    return wide              ? (rate){burst_avx512, 16}
           : have & CPU_AVX2 ? (rate){burst_avx2, 8}
                             : (rate){burst_scalar, 1};
}
#else
static rate fastest(precision p) {
    (void)p;
    return (rate){burst_scalar, 1};
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
    device_peak peak = {.flops = 2.0 * r.lanes * SUMS * STEPS * (double)pieces /
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
