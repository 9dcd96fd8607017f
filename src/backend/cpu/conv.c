/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions, one value at a time: correct, not fast. */
#include "backend/cpu/cpu.h"

static float weight_at(const cpu_device *d, const conv *w, int64_t i) {
    float v;
    const char *p = w->weight.data;
    wan_cpu_unpack(&d->k, w->weight.type, &v, p + i * wan_dtype(w->weight.type)->bytes, 1);
    return v;
}

/* Input frame s counted from the first frame that kt looks at, or NULL where it is zero. */
static const float *frame_at(tensor x, const history *past, int64_t before, int64_t s) {
    int64_t size = x.dim[1] * x.dim[2] * x.dim[3];
    if (s >= before)
        return (const float *)x.data + (s - before) * size;
    if (past && s >= before - past->held)
        return (const float *)past->frames.data + s * size;
    return NULL;
}

void wan_cpu_conv3d(compute *c, tensor dst, tensor x, const conv *w, const history *past,
                    int time_stride, bool add) {
    const cpu_device *d = wan_cpu_device(c);
    const int64_t *k = w->weight.dim + 2, out = w->weight.dim[0], in = x.dim[3], rows = x.dim[1],
                  cols = x.dim[2];
    int64_t before = past ? past->frames.dim[0] : k[0] - 1,
            frames = (before + x.dim[0] - k[0]) / time_stride + 1;
    int64_t split = out / dst.dim[3];
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t o = 0; o < out; o++)
        for (int64_t p = 0; p < frames * rows * cols; p++) {
            int64_t px = p % cols, py = p / cols % rows, t = p / cols / rows;
            double sum = w->bias.data ? ((const float *)w->bias.data)[o] : 0;
            for (int64_t a = 0; a < k[0]; a++) {
                const float *f = frame_at(x, past, before, t * time_stride + a);
                for (int64_t tap = 0; f && tap < k[1] * k[2]; tap++) {
                    int64_t sy = py + tap / k[2] - k[1] / 2, sx = px + tap % k[2] - k[2] / 2;
                    if (sy < 0 || sy >= rows || sx < 0 || sx >= cols)
                        continue;
                    for (int64_t i = 0; i < in; i++)
                        sum += f[(sy * cols + sx) * in + i] *
                               weight_at(d, w, ((o * in + i) * k[0] + a) * k[1] * k[2] + tap);
                }
            }
            int64_t frame = t * split + o / dst.dim[3];
            float *to =
                (float *)dst.data + ((frame * rows + py) * cols + px) * dst.dim[3] + o % dst.dim[3];
            *to = add ? *to + (float)sum : (float)sum;
        }
}

void wan_cpu_conv2d(compute *c, tensor dst, tensor x, const conv *w, resample r, bool add) {
    const cpu_device *d = wan_cpu_device(c);
    int64_t k = w->weight.dim[2], out = dst.dim[3], in = x.dim[3], rows = dst.dim[1],
            cols = dst.dim[2];
    int64_t high = r == WAN_UP2 ? 2 * x.dim[1] : x.dim[1],
            wide = r == WAN_UP2 ? 2 * x.dim[2] : x.dim[2];
    int64_t step = r == WAN_DOWN2 ? 2 : 1, pad = r == WAN_DOWN2 ? 0 : k / 2,
            half = r == WAN_UP2 ? 2 : 1;
#pragma omp parallel for collapse(2) num_threads(d->threads)
    for (int64_t o = 0; o < out; o++)
        for (int64_t p = 0; p < dst.dim[0] * rows * cols; p++) {
            int64_t px = p % cols, py = p / cols % rows, t = p / cols / rows;
            double sum = w->bias.data ? ((const float *)w->bias.data)[o] : 0;
            for (int64_t tap = 0; tap < k * k; tap++) {
                int64_t sy = py * step + tap / k - pad, sx = px * step + tap % k - pad;
                if (sy < 0 || sy >= high || sx < 0 || sx >= wide)
                    continue;
                const float *f = (const float *)x.data +
                                 ((t * x.dim[1] + sy / half) * x.dim[2] + sx / half) * in;
                for (int64_t i = 0; i < in; i++)
                    sum += f[i] * weight_at(d, w, (o * in + i) * k * k + tap);
            }
            float *to = (float *)dst.data + p * out + o;
            *to = add ? *to + (float)sum : (float)sum;
        }
}
