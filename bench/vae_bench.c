/* SPDX-License-Identifier: Apache-2.0 */
/* vae_bench [THREADS [FILTER [f32|bf16]]] - the autoencoder's stages at the size of TI2V-5B and
 * 480 x 480 pixels, with invented BF16 weights.  Each line: seconds, GFLOP/s, the share of the
 * multiply-adds this machine can do at all in that precision, and the scratch it took. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backend/backend.h"
#include "base/half.h"

static uint32_t state = 1;

/* Small numbers of both signs. */
static float next(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

/* ---------------------------------------------------------------------------------- the stages */

/* Seconds, by the clock and of all processors together: on a busy machine the second tells more. */
typedef struct clocks {
    double wall, cpu;
} clocks;

static clocks now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (clocks){(double)t.tv_sec + 1e-9 * (double)t.tv_nsec, (double)clock() / CLOCKS_PER_SEC};
}

/* One pool of invented weights serves every convolution. */
typedef struct bench {
    compute *c;
    uint16_t *weights;
    float *vector;
    clocks aside; /* spent on input, not on the stage */
} bench;

static conv convolution(const bench *b, int64_t out, int64_t in, int64_t kt, int64_t k) {
    conv w = {.bias = wan_tensor(WAN_F32, WAN_DIMS(out), b->vector)};
    if (kt)
        w.weight = wan_tensor(WAN_BF16, WAN_DIMS(out, in, kt, k, k), b->weights);
    else
        w.weight = wan_tensor(WAN_BF16, WAN_DIMS(out, in, k, k), b->weights);
    return w;
}

/* Random pixels; the clock stands still while they are made. */
static tensor image_of(bench *b, dtype type, int64_t t, int64_t n, int64_t channels) {
    clocks start = now();
    tensor x = wan_new(b->c, type, WAN_DIMS(t, n, n, channels));
    for (int64_t i = 0; wan_ready(b->c) && i < wan_elements(x); i++)
        if (type == WAN_F32)
            ((float *)x.data)[i] = next();
        else
            ((uint16_t *)x.data)[i] = wan_brain_from_float(next());
    clocks end = now();
    b->aside.wall += end.wall - start.wall;
    b->aside.cpu += end.cpu - start.cpu;
    return x;
}

static tensor image(bench *b, int64_t t, int64_t n, int64_t channels) {
    return image_of(b, WAN_F32, t, n, channels);
}

/* As a norm leaves them. */
static tensor input(bench *b, int64_t t, int64_t n, int64_t channels) {
    return image_of(b, b->c->conv_in, t, n, channels);
}

static void residual(bench *b, tensor x) {
    compute *c = b->c;
    int64_t n = x.dim[3];
    size_t mark = wan_mark(c);
    conv w = convolution(b, n, n, 3, 3);
    tensor gain = wan_tensor(WAN_F32, WAN_DIMS(n), b->vector);
    tensor y = wan_conv3d(c, wan_pixel_norm(c, x, gain, true), &w, NULL);
    y = wan_pixel_norm_in_place(c, y, gain, true);
    wan_conv3d_add(c, x, y, &w, NULL);
    wan_release(c, mark);
}

static void conv_one_frame(bench *b) {
    conv w = convolution(b, 1024, 1024, 3, 3);
    history past = wan_history_begin(b->c, 2, 30, 30, 1024);
    tensor x = input(b, 1, 30, 1024);
    past.held = 2;
    if (wan_ready(b->c))
        memset(past.frames.data, 0, wan_bytes(past.frames));
    wan_conv3d(b->c, x, &w, &past);
}

static void attention_480(bench *b) {
    const attention a = {.heads = 1, .scale = 1.0f / 32, .last_key_count = 1};
    tensor x = wan_reshape(image(b, 1, 30, 1024), WAN_DIMS(900, 1024));
    wan_attention(b->c, x, x, x, &a);
}

static void norm(bench *b) {
    tensor gain = wan_tensor(WAN_F32, WAN_DIMS(256), b->vector);
    wan_pixel_norm(b->c, image(b, 4, 240, 256), gain, true);
}

static void shortcut(bench *b) {
    wan_dup_up(b->c, image(b, 1, 120, 512), 512, 1, 2, false);
}

static void average(bench *b) {
    wan_avg_down(b->c, image(b, 1, 240, 160), 320, 1, 2, false);
}

static void pixels(bench *b) {
    tensor frames = wan_new(b->c, WAN_F32, WAN_DIMS(3, 4, 480, 480));
    wan_pixels_out(b->c, frames, 0, image(b, 4, 240, 12), 2);
}

static void last_frames(bench *b) {
    history past = wan_history_begin(b->c, 2, 240, 240, 256);
    tensor x = input(b, 2, 240, 256);
    wan_copy(b->c, past.frames, x);
}

/* The first level: 30 x 30 x 1 latents to 60 x 60 x 2. */
static void level_0(bench *b) {
    compute *c = b->c;
    tensor x = image(b, 1, 30, 1024), sum = wan_dup_up(c, x, 1024, 2, 2, false);
    conv time = convolution(b, 2048, 1024, 3, 1), up = convolution(b, 1024, 1024, 0, 3);
    for (int i = 0; i < 3; i++)
        residual(b, x);
    wan_conv2d_add(c, sum, wan_frames_up(c, x, &time, NULL, false), &up, WAN_UP2);
}

/* A residual block of the last level, one frame of 240 x 240. */
static void block_3(bench *b) {
    residual(b, image(b, 1, 240, 256));
}

/* A kernel over `frames` of side x side pixels, 3 x 3 x 3 where nothing is resampled. */
typedef struct plain_conv {
    int64_t frames, side, in, out;
    resample how;
} plain_conv;

static const struct stage {
    const char *name;
    plain_conv conv;
    void (*run)(bench *b); /* NULL: the convolution */
} stages[] = {
    {"conv 1024 30x30x4", {4, 30, 1024, 1024, WAN_SAME}, NULL},
    {"conv 256 120x120x4", {4, 120, 256, 256, WAN_SAME}, NULL},
    {"conv 256 128x128x4", {4, 128, 256, 256, WAN_SAME}, NULL}, /* as in peers/onednn.py */
    {"conv 512 64x64x4", {4, 64, 512, 512, WAN_SAME}, NULL},    /* the same */
    {"head 256-12 240x240", {1, 240, 256, 12, WAN_SAME}, NULL},
    {"upsample 1024 30x30x2", {2, 30, 1024, 1024, WAN_UP2}, NULL},
    {"downsample 160 240x240", {1, 240, 160, 160, WAN_DOWN2}, NULL},
    {"conv 1024 30x30x1", {0}, conv_one_frame},
    {"attention 1024 30x30", {0}, attention_480},
    {"norm 256 240x240x4", {0}, norm},
    {"dup up 512 120x120x1", {0}, shortcut},
    {"average 160-320 240x240", {0}, average},
    {"pixels out 240x240x4", {0}, pixels},
    {"history 256 240x240x2", {0}, last_frames},
    {"level 0, 1 latent frame", {0}, level_0},
    {"level 3 block, 1 frame", {0}, block_3},
};

static void run(bench *b, const struct stage *s) {
    const plain_conv *p = &s->conv;
    if (s->run) {
        s->run(b);
    } else if (p->how == WAN_SAME) {
        conv w = convolution(b, p->out, p->in, 3, 3);
        wan_conv3d(b->c, input(b, p->frames, p->side, p->in), &w, NULL);
    } else {
        conv w = convolution(b, p->out, p->in, 0, 3);
        wan_conv2d(b->c, input(b, p->frames, p->side, p->in), &w, p->how);
    }
}

/* Multiply-adds counted twice, per second. */
static double peak_flops(precision p, int threads) {
    void *device =
        wan_backend_cpu.open(&(device_options){.threads = threads, .precision = p}, NULL);
    if (!device)
        return NAN;
    double flops = wan_backend_cpu.peak(device, p).flops;
    wan_backend_cpu.close(device);
    return flops;
}

static void measure(const struct stage *s, bench *b, precision p, int threads, double peak) {
    error err = {0};
    const backend *be = &wan_backend_cpu;
    compute dry = wan_compute_plan(be, p), c;
    b->c = &dry;
    run(b, s);
    void *device = be->open(&(device_options){.threads = threads, .precision = p}, &err);
    if (!device || wan_compute_on(&c, be, device, p, dry.scratch.peak, &err)) {
        printf("%-24s %s\n", s->name, err.message);
        return;
    }
    c.owns_device = true;
    b->c = &c;
    clocks best = {INFINITY, INFINITY};
    for (int i = 0; i < 3; i++) {
        size_t mark = wan_mark(&c);
        b->aside = (clocks){0, 0};
        clocks start = now();
        run(b, s);
        clocks end = now();
        best.wall = fmin(best.wall, end.wall - start.wall - b->aside.wall);
        best.cpu = fmin(best.cpu, end.cpu - start.cpu - b->aside.cpu);
        wan_release(&c, mark);
    }
    double share = 100 * dry.done.flops / peak;
    printf("%-24s %8.4f s %8.1f GFLOP/s %5.1f %% %8.1f MB; %8.4f cpu s, %6.1f GFLOP each, %5.1f "
           "%%%s%s\n",
           s->name, best.wall, dry.done.flops / best.wall / 1e9, share / best.wall,
           (double)c.scratch.peak / 1e6, best.cpu, dry.done.flops / best.cpu / 1e9,
           share * threads / best.cpu, c.err.code ? "  " : "", c.err.message);
    fflush(stdout);
    wan_compute_close(&c);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    const char *filter = argc > 2 ? argv[2] : "";
    precision p = argc > 3 && !strcmp(argv[3], "bf16") ? WAN_PRECISION_BF16 : WAN_PRECISION_F32;
    const int64_t most = (int64_t)1024 * 1024 * 27;
    bench b = {.weights = malloc((size_t)most * sizeof *b.weights),
               .vector = malloc(4096 * sizeof *b.vector)};
    if (!b.weights || !b.vector)
        return 1;
    for (int64_t i = 0; i < most; i++) {
        float v = next() * 0.01f;
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        b.weights[i] = (uint16_t)(bits >> 16);
    }
    for (int i = 0; i < 4096; i++)
        b.vector[i] = 1 + 0.1f * next();
    double peak = peak_flops(p, threads);
    printf("%d threads, %.1f GFLOP/s at most\n", threads, peak / 1e9);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (strstr(stages[i].name, filter))
            measure(&stages[i], &b, p, threads, peak);
    free(b.weights);
    free(b.vector);
    return 0;
}
