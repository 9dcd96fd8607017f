/* SPDX-License-Identifier: Apache-2.0 */
/* Norms of rows: two passes, mean first, so that a large mean costs no accuracy. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <omp.h>
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

void wan_cpu_layer_norm(compute *c, tensor dst, tensor x, tensor gain, tensor bias, float eps) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t dim = x.dim[1];
#pragma omp parallel for num_threads(d->threads)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        const float *from = (const float *)x.data + t * dim;
        moments m = row_moments(&d->k, from, dim, eps);
        d->k.normalise((float *)dst.data + t * dim, from, m.mean, m.scale, 0, gain.data, bias.data,
                       dim);
    }
}

void wan_cpu_norm_modulate(compute *c, tensor dst, tensor x, by_frame shift, by_frame scale,
                           float eps) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t dim = x.dim[1];
#pragma omp parallel for num_threads(d->threads)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        const float *from = (const float *)x.data + t * dim;
        moments m = row_moments(&d->k, from, dim, eps);
        d->k.normalise((float *)dst.data + t * dim, from, m.mean, m.scale, 1,
                       wan_cpu_frame_row(scale, t), wan_cpu_frame_row(shift, t), dim);
    }
}

void wan_cpu_rms_norm(compute *c, tensor dst, tensor x, tensor gain, float eps) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t dim = x.dim[1];
#pragma omp parallel for num_threads(d->threads)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        const float *from = (const float *)x.data + t * dim;
        d->k.normalise((float *)dst.data + t * dim, from, 0, rms_scale(&d->k, from, dim, eps), 0,
                       gain.data, NULL, dim);
    }
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

void wan_cpu_qk_norm_rope(compute *c, tensor x, tensor gain, float eps, int heads, const rope *r) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t dim = x.dim[1], head = dim / heads;
    if (r && (size_t)head * sizeof(float) > CPU_WORK_BYTES) {
        wan_fail(&c->err, WAN_E_SHAPE, "cpu: rotary heads of %lld numbers, at most %zu fit",
                 (long long)head, CPU_WORK_BYTES / sizeof(float));
        return;
    }
#pragma omp parallel for num_threads(d->threads)
    for (int64_t t = 0; t < x.dim[0]; t++) {
        float *row = (float *)x.data + t * dim;
        d->k.normalise(row, row, 0, rms_scale(&d->k, row, dim, eps), 0, gain.data, NULL, dim);
        if (!r)
            continue;
        float *turn = wan_cpu_work(d, omp_get_thread_num());
        token_turn(turn, r, t);
        for (int h = 0; h < heads; h++)
            d->k.rotate(row + h * head, turn, head);
    }
}
