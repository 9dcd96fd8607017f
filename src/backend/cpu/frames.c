/* SPDX-License-Identifier: Apache-2.0 */
/* The autoencoder's ops that are no convolution: norm, shortcuts, and the way in and
 * out. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

void wan_cpu_pixel_norm(compute *c, tensor dst, tensor x, tensor gain, bool silu) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t n = x.dim[3], pixels = wan_elements(x) / n;
    float root = sqrtf((float)n);
#pragma omp parallel for num_threads(d->threads)
    for (int64_t p = 0; p < pixels; p++) {
        const float *from = (const float *)x.data + p * n;
        float *to = (float *)dst.data + p * n;
        double length = sqrt(d->k.sum_squares(from, 0, n));
        d->k.normalise(to, from, 0, root / (float)fmax(length, 1e-12), 0, gain.data, NULL, n);
        if (silu)
            d->k.silu(to, n);
    }
}

void wan_cpu_dup_up(compute *c, tensor dst, tensor x, int ft, int fs, int drop) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t out = dst.dim[3], in = x.dim[3], repeats = out * ft * fs * fs / in;
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t t = 0; t < dst.dim[0]; t++)
        for (int64_t y = 0; y < dst.dim[1]; y++)
            for (int64_t col = 0; col < dst.dim[2]; col++) {
                int64_t n = t + drop, phase = ((n % ft) * fs + y % fs) * fs + col % fs;
                const float *from = (const float *)x.data +
                                    ((n / ft * x.dim[1] + y / fs) * x.dim[2] + col / fs) * in;
                float *to = (float *)dst.data + ((t * dst.dim[1] + y) * dst.dim[2] + col) * out;
                for (int64_t o = 0; o < out; o++)
                    to[o] = from[(o * ft * fs * fs + phase) / repeats];
            }
}

void wan_cpu_avg_down(compute *c, tensor dst, tensor x, int ft, int fs, int pad) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t out = dst.dim[3], in = x.dim[3], block = (int64_t)ft * fs * fs,
            group = in * block / out;
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t t = 0; t < dst.dim[0]; t++)
        for (int64_t y = 0; y < dst.dim[1]; y++)
            for (int64_t col = 0; col < dst.dim[2]; col++) {
                float *to = (float *)dst.data + ((t * dst.dim[1] + y) * dst.dim[2] + col) * out;
                for (int64_t o = 0; o < out; o++) {
                    float sum = 0;
                    for (int64_t f = o * group; f < (o + 1) * group; f++) {
                        int64_t from = t * ft + f % block / (fs * fs) - pad;
                        int64_t row = y * fs + f / fs % fs, at = col * fs + f % fs;
                        if (from >= 0)
                            sum += ((const float *)
                                        x.data)[((from * x.dim[1] + row) * x.dim[2] + at) * in +
                                                f / block];
                    }
                    to[o] = sum / (float)group;
                }
            }
}

void wan_cpu_copy(compute *c, tensor dst, tensor src) {
    (void)c;
    memmove(dst.data, src.data, wan_bytes(src));
}

void wan_cpu_pixels_in(compute *c, tensor dst, tensor pixels, int64_t from, int p) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t high = pixels.dim[2], wide = pixels.dim[3], channels = dst.dim[3];
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t t = 0; t < dst.dim[0]; t++)
        for (int64_t y = 0; y < dst.dim[1]; y++)
            for (int64_t x = 0; x < dst.dim[2]; x++)
                for (int64_t i = 0; i < channels; i++) {
                    int64_t plane = i / (p * p), dx = i / p % p, dy = i % p;
                    const float *frame = (const float *)pixels.data +
                                         (plane * pixels.dim[1] + from + t) * high * wide;
                    ((float *)dst.data)[((t * dst.dim[1] + y) * dst.dim[2] + x) * channels + i] =
                        frame[(y * p + dy) * wide + x * p + dx];
                }
}

void wan_cpu_pixels_out(compute *c, tensor pixels, int64_t from, tensor x, int p) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t high = pixels.dim[2], wide = pixels.dim[3], channels = x.dim[3];
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t t = 0; t < x.dim[0]; t++)
        for (int64_t y = 0; y < x.dim[1]; y++)
            for (int64_t col = 0; col < x.dim[2]; col++)
                for (int64_t i = 0; i < channels; i++) {
                    int64_t plane = i / (p * p), dx = i / p % p, dy = i % p;
                    float *frame =
                        (float *)pixels.data + (plane * pixels.dim[1] + from + t) * high * wide;
                    float v = ((const float *)
                                   x.data)[((t * x.dim[1] + y) * x.dim[2] + col) * channels + i];
                    /* written so that NaN passes through and shows */
                    frame[(y * p + dy) * wide + col * p + dx] = v < -1 ? -1 : v > 1 ? 1 : v;
                }
}

void wan_cpu_latents_in(compute *c, tensor dst, tensor latents, int64_t from, tensor mean,
                        tensor inv_std) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t channels = latents.dim[0], size = latents.dim[2] * latents.dim[3];
    const float *m = mean.data, *s = inv_std.data;
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t t = 0; t < dst.dim[0]; t++)
        for (int64_t i = 0; i < size; i++)
            for (int64_t k = 0; k < channels; k++)
                ((float *)dst.data)[(t * size + i) * channels + k] =
                    ((const float *)latents.data)[(k * latents.dim[1] + from + t) * size + i] /
                        s[k] +
                    m[k];
}

void wan_cpu_latents_out(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                         tensor inv_std) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t channels = latents.dim[0], size = latents.dim[2] * latents.dim[3];
    const float *m = mean.data, *s = inv_std.data;
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t t = 0; t < x.dim[0]; t++)
        for (int64_t k = 0; k < channels; k++)
            for (int64_t i = 0; i < size; i++)
                ((float *)latents.data)[(k * latents.dim[1] + from + t) * size + i] =
                    (((const float *)x.data)[(t * size + i) * x.dim[3] + k] - m[k]) * s[k];
}
