/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/half.h"
#include "tensor/quantise.h"
#include "tensor/quants.h"

struct arena_block {
    struct arena_block *next;
    void *data;
};

void *host_alloc(check *t, size_t bytes) {
    struct arena_block *b = malloc(sizeof *b);
    void *p = aligned_alloc(64, (bytes + 64 + 63) & ~(size_t)63);
    if (!b || !p) {
        fprintf(stderr, "wan-check: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    *b = (struct arena_block){t->blocks, p};
    t->blocks = b;
    return p;
}

struct placed_block {
    struct placed_block *next;
    tensor t;
};

tensor place_weight(check *t, tensor host, weight_use use) {
    tensor w = t->c->be->place(t->c->device, host, use, &t->c->err);
    if (w.data && w.data != host.data) {
        struct placed_block *b = host_alloc(t, sizeof *b);
        *b = (struct placed_block){t->placed, w};
        t->placed = b;
    }
    return w;
}

void wan_check_free(check *t) {
    for (struct placed_block *b = t->placed; b; b = b->next)
        t->c->be->free(t->c->device, b->t.data, wan_bytes(b->t));
    t->placed = NULL;
    while (t->blocks) {
        struct arena_block *b = t->blocks;
        t->blocks = b->next;
        free(b->data);
        free(b);
    }
}

static uint64_t next(check *t) { /* splitmix64 */
    uint64_t z = t->seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double uniform(check *t) {
    return ((double)(next(t) >> 11) + 0.5) * 0x1p-53;
}

double random_normal(check *t) {
    return sqrt(-2 * log(uniform(t))) * cos(6.283185307179586 * uniform(t));
}

int64_t random_int(check *t, int64_t below) {
    return (int64_t)(next(t) % (uint64_t)below);
}

enum { PERIOD = 999983 }; /* random numbers are slow to draw: more of them repeat */

void fill_floats(check *t, float *x, int64_t n, fill how) {
    for (int64_t i = 0; i < n; i++) {
        if (how == NORMAL && i >= PERIOD) {
            x[i] = x[i - PERIOD];
            continue;
        }
        fill one = how == MIXED ? (fill)random_int(t, MIXED) : how;
        double scale = one == ZERO ? 0 : one == HUGE_NUMBERS ? 1e15 : one == SUBNORMAL ? 1e-40 : 1;
        x[i] = (float)(scale * random_normal(t));
    }
}

static bool is_half(dtype type) {
    return type == WAN_BF16 || type == WAN_F16;
}

static uint16_t narrow(dtype type, float x) {
    return type == WAN_BF16 ? wan_brain_from_float(x) : wan_half_from_float(x);
}

static float widen(dtype type, uint16_t h) {
    return type == WAN_BF16 ? wan_brain_to_float(h) : wan_half_to_float(h);
}

void round_floats(dtype type, float *x, int64_t n) {
    for (int64_t i = 0; is_half(type) && i < n; i++)
        x[i] = widen(type, narrow(type, x[i]));
}

/* Numbers about 1e15 and 1e-40 become the largest and smallest that an f16 is to hold. */
static void tame(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] *= fabsf(x[i]) > 1e9f ? 3e-14f : fabsf(x[i]) < 1e-30f ? 1e34f : 1;
}

tensor new_from(check *t, dtype type, int rank, const int64_t *dim, float *from) {
    tensor x = wan_new(t->c, type, rank, dim);
    int64_t n = wan_elements(x);
    round_floats(type, from, n);
    if (is_half(type)) {
        uint16_t *half = malloc(wan_bytes(x) + 1);
        for (int64_t i = 0; half && i < n; i++)
            half[i] = narrow(type, from[i]);
        wan_upload(t->c, x, half);
        free(half);
    } else {
        wan_upload(t->c, x, from);
    }
    return x;
}

static tensor new_filled(check *t, dtype type, int rank, const int64_t *dim, fill how,
                         float **host) {
    int64_t n = wan_elements(wan_tensor(type, rank, dim, NULL));
    float *h = host_alloc(t, sizeof *h * (size_t)n);
    fill_floats(t, h, n, how);
    if (type == WAN_F16)
        tame(h, n);
    if (host)
        *host = h;
    return new_from(t, type, rank, dim, h);
}

tensor new_f32(check *t, int rank, const int64_t *dim, fill how, float **host) {
    return new_filled(t, WAN_F32, rank, dim, how, host);
}

tensor new_rows(check *t, int rank, const int64_t *dim, fill how, float **host) {
    return new_filled(t, t->rows, rank, dim, how, host);
}

tensor new_act(check *t, int rank, const int64_t *dim, fill how, float **host) {
    return new_filled(t, t->c->act, rank, dim, how, host);
}

tensor new_i32(check *t, int64_t n, const int32_t *from) {
    tensor x = wan_new(t->c, WAN_I32, 1, &n);
    wan_upload(t->c, x, from);
    return x;
}

/* Nearest half, ties to even; out of range becomes infinity. */
static uint16_t to_f16(float f) {
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    double a = fabs((double)f);
    if (a >= 65520)
        return sign | 0x7c00;
    int e = a > 0 ? ilogb(a) : -20;
    double unit = ldexp(1, (e < -14 ? -14 : e) - 10);
    uint32_t n = (uint32_t)nearbyint(a / unit); /* of the unit; 1024.. when normal */
    if (e < -14)
        return (uint16_t)(sign | n);
    return (uint16_t)(sign | (((uint32_t)(e + 15) << 10) + n - 1024));
}

static float from_f16(uint16_t h) {
    int e = h >> 10 & 31, f = h & 1023;
    double a = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return (float)(h & 0x8000 ? -a : a);
}

/* The other types, whose decoder has tests of its own (tests/unit/quants_test.c). */
static void encode_codes(dtype type, char *to, float *x) {
    const dtype_info *d = wan_dtype(type);
    for (int i = 0; i < d->block; i++)
        x[i] = fmaxf(-1000, fminf(1000, x[i]));
    if (!wan_can_quantise(type)) /* whole numbers */
        for (int i = 0; i < d->bytes; i++)
            to[i] = (char)(int)fmaxf(-128, fminf(127, nearbyintf(40 * x[i])));
    else if (wan_quantise(type, to, x, d->block, NULL) != WAN_OK)
        abort();
    wan_dequantise(type, x, to, d->block);
}

/* Writes block number i of the type, closest to x, and puts what it stands for back into x. */
static void encode(dtype type, char *to, float *x) {
    uint16_t h;
    uint32_t bits;
    switch (type) {
    case WAN_F32:
        memcpy(to, x, 4);
        break;
    case WAN_F64:
        memcpy(to, &(double){*x}, 8);
        break;
    case WAN_F16:
        h = to_f16(*x);
        memcpy(to, &h, 2);
        *x = from_f16(h);
        break;
    case WAN_BF16:
        memcpy(&bits, x, 4);
        h = (uint16_t)(bits >> 16);
        memcpy(to, &h, 2);
        bits = (uint32_t)h << 16;
        memcpy(x, &bits, 4);
        break;
    case WAN_Q8_0: {
        float top = 0;
        for (int i = 0; i < 32; i++)
            top = fmaxf(top, fabsf(x[i]));
        h = to_f16(fminf(top / 127, 65504));
        float d = from_f16(h);
        memcpy(to, &h, 2);
        for (int i = 0; i < 32; i++) {
            double q = d > 0 ? fmax(-128, fmin(127, nearbyint((double)x[i] / d))) : i - 16;
            to[2 + i] = (char)(int8_t)q;
            x[i] = d * (float)(int)q; /* no -0 */
        }
        break;
    }
    default:
        encode_codes(type, to, x);
    }
}

static tensor stored_weight(check *t, dtype type, int rank, const int64_t *dim, fill how,
                            float **host) {
    const dtype_info *info = wan_dtype(type);
    tensor w = wan_tensor(type, rank, dim, NULL);
    int64_t n = wan_elements(w);
    float *h = host_alloc(t, (size_t)n * sizeof *h);
    char *stored = (char *)host_alloc(t, wan_bytes(w) + 1) + 1;
    fill_floats(t, h, n, how);
    if (type == WAN_F16) /* stay finite */
        for (int64_t i = 0; i < n; i++)
            h[i] = fmaxf(-60000, fminf(60000, h[i]));
    for (int64_t i = 0; i < n; i += info->block)
        encode(type, stored + i / info->block * info->bytes, h + i);
    w.data = stored;
    *host = h;
    return w;
}

tensor new_weight(check *t, dtype type, int rank, const int64_t *dim, fill how, float **host) {
    return place_weight(t, stored_weight(t, type, rank, dim, how, host), WAN_USE_MATRIX);
}

tensor new_table(check *t, dtype type, int64_t rows, int64_t dim, fill how, float **host) {
    return place_weight(t, stored_weight(t, type, WAN_DIMS(rows, dim), how, host), WAN_USE_TABLE);
}

tensor new_kernel(check *t, dtype type, int rank, const int64_t *dim, bool channels_last,
                  float **host) {
    int64_t order[WAN_MAX_RANK] = {dim[0]}, in = dim[1], taps = 1;
    for (int i = 2; i < rank; i++)
        taps *= order[i - 1] = dim[i];
    order[rank - 1] = in;
    tensor w = stored_weight(t, type, rank, channels_last ? order : dim, NORMAL, host);
    int64_t n = wan_elements(w);
    if (channels_last) {
        float *h = *host;
        *host = host_alloc(t, sizeof **host * (size_t)n);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = i % (in * taps);
            (*host)[i] = h[i - at + at % taps * in + at / taps];
        }
        memcpy(w.dim, dim, sizeof *dim * (size_t)rank);
    }
    w = place_weight(t, w, channels_last ? WAN_USE_CONV_CHANNELS_LAST : WAN_USE_CONV);
    if (w.type != type)
        round_floats(w.type, *host, n);
    return w;
}

float *values(check *t, tensor x) {
    bool half = is_half(x.type);
    int64_t n = wan_elements(x);
    float *h = host_alloc(t, half ? sizeof *h * (size_t)n : wan_bytes(x));
    char *to = (char *)h + (half ? sizeof(uint16_t) * (size_t)n : 0); /* the upper half, if so */
    wan_download(t->c, to, x);
    for (int64_t i = 0; half && i < n; i++) {
        uint16_t b;
        memcpy(&b, to + sizeof b * (size_t)i, sizeof b);
        h[i] = widen(x.type, b);
    }
    return h;
}

enum { GUARD = 4096, PATTERN = 0xa5 };

static tensor bytes_at(check *t, size_t offset, size_t n) {
    int64_t dim = (int64_t)n;
    return wan_tensor(WAN_U8, 1, &dim, t->c->scratch.base + offset);
}

void guard_begin(check *t, size_t bytes) {
    int64_t front = GUARD;
    t->c->workspace = NULL;
    tensor before = wan_new(t->c, WAN_U8, 1, &front);
    size_t at = wan_mark(t->c) - GUARD, n = bytes + 2 * GUARD + 64;
    (void)before;
    assert(at + n <= t->c->scratch.size);
    void *h = host_alloc(t, n);
    memset(h, PATTERN, n);
    wan_upload(t->c, bytes_at(t, at, n), h);
}

void guard_end(check *t, tensor result) {
    size_t at = (size_t)((char *)result.data - t->c->scratch.base), n = wan_bytes(result);
    const unsigned char *before = (const unsigned char *)values(t, bytes_at(t, at - GUARD, GUARD));
    const unsigned char *after = (const unsigned char *)values(t, bytes_at(t, at + n, GUARD));
    const char *space = t->c->workspace, *end = (const char *)result.data + n;
    int seen = space && space >= end && space < end + GUARD ? (int)(space - end) : GUARD;
    for (int i = 0; i < GUARD; i++) {
        expect(t, before[i] == PATTERN, "byte %d before the result was written", GUARD - i);
        expect(t, i >= seen || after[i] == PATTERN, "byte %d behind the result was written", i);
    }
}

void expect(check *t, bool ok, const char *format, ...) {
    if (ok)
        return;
    if (t->failures++ >= 5) /* enough to see what is wrong */
        return;
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s, %s: ", t->name, t->device);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
}

void expect_close(check *t, const char *what, const float *got, const double *want, int64_t n,
                  const double *tol, int tol_stride) {
    for (int64_t i = 0; i < n; i++) {
        double w = want[i], limit = tol[i * tol_stride];
        bool ok = isnan(w)            ? isnan(got[i])
                  : fabs(w) > FLT_MAX ? (double)got[i] == (w > 0 ? INFINITY : -INFINITY)
                                      : fabs((double)got[i] - w) <= limit;
        expect(t, ok, "%s: element %lld of %lld is %.9g, expected %.9g within %.3g", what,
               (long long)i, (long long)n, (double)got[i], w, limit);
    }
}

void expect_equal(check *t, const char *what, const float *got, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        expect(t, !memcmp(&got[i], &want[i], sizeof *got),
               "%s: element %lld of %lld is %.9g, expected exactly %.9g", what, (long long)i,
               (long long)n, (double)got[i], (double)want[i]);
}

static double limit_on_device(const check *t, dtype type, double want, double tol) {
    if (tol <= 0)
        return 0;
    double limit = t->loose * tol, least = type == WAN_F16 ? 0x1p-24 : 0x1p-133;
    return is_half(type) ? limit + unit_of(type) * (fabs(want) + limit) + least : limit;
}

void expect_near(check *t, const char *what, tensor got, const double *want, const double *tol) {
    int64_t n = wan_elements(got);
    double *limit = host_alloc(t, sizeof *limit * (size_t)n);
    for (int64_t i = 0; i < n; i++)
        limit[i] = limit_on_device(t, got.type, want[i], tol[i]);
    expect_close(t, what, values(t, got), want, n, limit, 1);
}

void expect_some(check *t, const char *what, tensor got, const int64_t *at, int64_t n,
                 const double *want, const double *tol) {
    const float *all = values(t, got);
    for (int64_t i = 0; i < n; i++) {
        double limit = limit_on_device(t, got.type, want[i], tol[i]), v = all[at[i]];
        expect(t, fabs(v - want[i]) <= limit, "%s: element %lld is %.9g, expected %.9g within %.3g",
               what, (long long)at[i], v, want[i], limit);
    }
}

void expect_decoded(check *t, const char *what, const float *got, const float *want, int64_t n) {
    if (t->k) {
        expect_equal(t, what, got, want, n);
        return;
    }
    float top = 0;
    for (int64_t i = 0; i < n; i++)
        top = fmaxf(top, fabsf(want[i]));
    for (int64_t i = 0; i < n; i++)
        expect(t, fabs((double)got[i] - want[i]) <= 4 * 0x1p-24 * top,
               "%s: number %lld of %lld is %.9g, expected %.9g", what, (long long)i, (long long)n,
               (double)got[i], (double)want[i]);
}

double tol_dot(int64_t n, double magnitude) {
    return (8 + 2 * sqrt((double)n)) * 0x1p-24 * magnitude + (double)n * 0x1p-149;
}

static clockid_t bench_clock = CLOCK_MONOTONIC;

/* One thread is timed by what it ran, so that other work on the machine hardly shows. */
void wan_bench_one_thread(void) {
    bench_clock = CLOCK_THREAD_CPUTIME_ID;
}

double seconds(void) {
    struct timespec now;
    clock_gettime(bench_clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bench bench_begin(check *t, const char *label, double flops, double bytes) {
    return (bench){.t = t, .label = label, .flops = flops, .bytes = bytes, .runs = -1};
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The scalar twin runs first; what it took is kept by label. */
static double ratio_to_scalar(const bench *b, double time) {
    static struct {
        char label[64];
        double time;
    } kept[256];
    static size_t n;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(kept[i].label, b->label))
            return kept[i].time / time;
    if (strncmp(b->t->device, "cpu scalar", 10) || n == COUNT(kept))
        return NAN;
    snprintf(kept[n].label, sizeof kept[n].label, "%s", b->label);
    kept[n++].time = time;
    return 1;
}

static void report(bench *b) {
    qsort(b->best, COUNT(b->best), sizeof b->best[0], ascending);
    double time = b->best[COUNT(b->best) / 2], ratio = ratio_to_scalar(b, time);
    printf("%-34s %-12s %10.1f us %8.2f GB/s", b->label, b->t->device, time * 1e6,
           b->bytes / time * 1e-9);
    if (b->flops > 0)
        printf(" %8.1f GFLOP/s", b->flops / time * 1e-9);
    if (b->flops > 0 && b->t->peak > 0)
        printf(" %5.1f %% of peak", 100 * b->flops / time / b->t->peak);
    if (isnan(ratio))
        printf("\n");
    else
        printf("  %.1fx scalar\n", ratio);
    fflush(stdout);
}

/* Until the device has done what it was asked to. */
static void await(check *t) {
    char byte;
    if (t->c->be->own_memory)
        wan_download(t->c, &byte, wan_tensor(WAN_U8, WAN_DIMS(1), t->c->scratch.base));
}

bool bench_next(bench *b) {
    if (!b->t->bench)
        return false;
    await(b->t);
    double now = seconds();
    if (b->runs >= 0) /* the first run warms up */
        b->best[b->runs] = now - b->started;
    if (++b->runs == (int)COUNT(b->best)) {
        report(b);
        return false;
    }
    b->started = seconds();
    return true;
}
