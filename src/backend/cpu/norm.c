/* SPDX-License-Identifier: Apache-2.0 */
/* Norms of rows: two passes, mean first, so that a large mean costs no accuracy. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

typedef struct moments {
    float mean, scale; /* scale = 1 / sqrt(variance + eps) */
} moments;

static moments row_moments(const cpu_kernels *k, const float *x, int64_t n, float eps) {
    moments m;
    m.mean = (float)(k->sum(x, n) / (double)n);
    m.scale = (float)(1.0 / sqrt(k->sum_squares(x, m.mean, n) / (double)n + (double)eps));
    return m;
}

static float rms_scale(const cpu_kernels *k, const float *x, int64_t n, float eps) {
    return (float)(1.0 / sqrt(k->sum_squares(x, 0, n) / (double)n + (double)eps));
}

/* What the pieces of a norm share. */
typedef struct operands {
    const cpu_device *d;
    tensor dst, x, gain, bias;
    by_frame shift, scale;
    float eps;
    int heads;
    const rope *r;
} operands;

static void layer_norm_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t dim = o->x.dim[1];
    (void)worker;
    for (int64_t t = first; t < end; t++) {
        const float *from = (const float *)o->x.data + t * dim;
        moments m = row_moments(&o->d->k, from, dim, o->eps);
        o->d->k.normalise((float *)o->dst.data + t * dim, from, m.mean, m.scale, 0, o->gain.data,
                          o->bias.data, dim);
    }
}

void wan_cpu_layer_norm(compute *c, tensor dst, tensor x, tensor gain, tensor bias, float eps) {
    operands o = {
        .d = wan_cpu_device(c), .dst = dst, .x = x, .gain = gain, .bias = bias, .eps = eps};
    wan_team_run(o.d->team, x.dim[0], wan_cpu_grain(x.dim[1]), layer_norm_piece, &o);
}

static void norm_modulate_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t dim = o->x.dim[1];
    (void)worker;
    for (int64_t t = first; t < end; t++) {
        const float *from = (const float *)o->x.data + t * dim;
        moments m = row_moments(&o->d->k, from, dim, o->eps);
        o->d->k.normalise((float *)o->dst.data + t * dim, from, m.mean, m.scale, 1,
                          wan_cpu_frame_row(o->scale, t), wan_cpu_frame_row(o->shift, t), dim);
    }
}

void wan_cpu_norm_modulate(compute *c, tensor dst, tensor x, by_frame shift, by_frame scale,
                           float eps) {
    operands o = {
        .d = wan_cpu_device(c), .dst = dst, .x = x, .shift = shift, .scale = scale, .eps = eps};
    wan_team_run(o.d->team, x.dim[0], wan_cpu_grain(x.dim[1]), norm_modulate_piece, &o);
}

static void rms_norm_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t dim = o->x.dim[1];
    (void)worker;
    for (int64_t t = first; t < end; t++) {
        const float *from = (const float *)o->x.data + t * dim;
        o->d->k.normalise((float *)o->dst.data + t * dim, from, 0,
                          rms_scale(&o->d->k, from, dim, o->eps), 0, o->gain.data, NULL, dim);
    }
}

void wan_cpu_rms_norm(compute *c, tensor dst, tensor x, tensor gain, float eps) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = x, .gain = gain, .eps = eps};
    wan_team_run(o.d->team, x.dim[0], wan_cpu_grain(x.dim[1]), rms_norm_piece, &o);
}

/* Cosines and sines of one token, frame pairs first. */
static void token_turn(float *turn, const rope *r, int64_t token) {
    int64_t at[3] = {token / r->grid[2] / r->grid[1], token / r->grid[2] % r->grid[1],
                     token % r->grid[2]};
    for (int i = 0; i < 3; i++) {
        size_t n = (size_t)(2 * r->pairs[i]);
        memcpy(turn, (const float *)r->table[i].data + (size_t)at[i] * n, n * sizeof *turn);
        turn += n;
    }
}

static void qk_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t dim = o->x.dim[1], head = dim / o->heads;
    float *turn = wan_cpu_work(o->d, worker);
    for (int64_t t = first; t < end; t++) {
        float *row = (float *)o->x.data + t * dim;
        o->d->k.normalise(row, row, 0, rms_scale(&o->d->k, row, dim, o->eps), 0, o->gain.data, NULL,
                          dim);
        if (!o->r)
            continue;
        token_turn(turn, o->r, t);
        for (int h = 0; h < o->heads; h++)
            o->d->k.rotate(row + h * head, turn, head);
    }
}

void wan_cpu_qk_norm_rope(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r) {
    operands o = {.d = wan_cpu_device(c), .x = x, .gain = gain, .eps = eps, .heads = heads, .r = r};
    int64_t head = x.dim[1] / heads;
    if (r && (size_t)head * sizeof(float) > CPU_WORK_BYTES) {
        wan_fail(&c->err, WAN_E_SHAPE, "cpu: rotary heads of %lld numbers, at most %zu fit",
                 (long long)head, CPU_WORK_BYTES / sizeof(float));
        return;
    }
    wan_team_run(o.d->team, x.dim[0], wan_cpu_grain(x.dim[1]), qk_piece, &o);
}
