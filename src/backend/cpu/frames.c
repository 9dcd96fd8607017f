/* SPDX-License-Identifier: Apache-2.0 */
/* The autoencoder's ops that are no convolution: norm, shortcuts, and the way in and
 * out. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* What the pieces of an op share; a piece is some rows of pixels, counted through all frames,
 * unless its function says otherwise. */
typedef struct operands {
    const cpu_device *d;
    tensor dst, x, gain;
    int64_t from; /* first frame of the side that holds all, or first pixel */
    int ft, fs, drop, pad, p;
    const float *mean, *inv_std;
    bool silu;
} operands;

static void pixel_norm_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg; /* single pixels */
    int64_t n = o->x.dim[3];
    float root = sqrtf((float)n);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        const float *from = (const float *)o->x.data + i * n;
        float *to = (float *)o->dst.data + i * n;
        double length = sqrt(o->d->k.sum_squares(from, 0, n));
        o->d->k.normalise(to, from, 0, root / (float)fmax(length, 1e-12), 0, o->gain.data, NULL, n);
    }
    if (o->silu)
        o->d->k.silu((float *)o->dst.data + first * n, (end - first) * n);
}

/* The same to bf16: a stretch of channels is f32 for as long as it is in the cache. */
static void pixel_norm_rounded_piece(void *arg, int64_t first, int64_t end, int worker) {
    enum { STRETCH = 512 };
    const operands *o = arg;
    const cpu_kernels *k = &o->d->k;
    int64_t channels = o->x.dim[3];
    float root = sqrtf((float)channels), some[STRETCH];
    (void)worker;
    for (int64_t i = first + o->from; i < end + o->from; i++) {
        const float *from = (const float *)o->x.data + i * channels, *gain = o->gain.data;
        uint16_t *to = (uint16_t *)o->dst.data + i * channels;
        float scale = root / (float)fmax(sqrt(k->sum_squares(from, 0, channels)), 1e-12);
        for (int64_t c = 0, n; c < channels; c += n) {
            n = channels - c < STRETCH ? channels - c : STRETCH;
            k->normalise(some, from + c, 0, scale, 0, gain + c, NULL, n);
            if (o->silu)
                k->silu(some, n);
            k->to_bf16(to + c, some, n);
        }
    }
}

/* In place, pixels from n on become bytes that pixels from n / 2 on were: in waves, each twice as
 * many as all before it, what is overwritten has been read. */
static void pixel_norm_rounded(operands *o) {
    int64_t pixels = wan_elements(o->x) / o->x.dim[3], grain = wan_cpu_grain(o->x.dim[3]);
    int64_t wave = o->dst.data == o->x.data ? grain : pixels;
    for (int64_t n; o->from < pixels; o->from += n) {
        n = o->from ? o->from : wave;
        n = n < pixels - o->from ? n : pixels - o->from;
        wan_team_run(o->d->team, n, grain, pixel_norm_rounded_piece, o);
    }
}

void wan_cpu_pixel_norm(compute *c, tensor dst, tensor x, tensor gain, bool silu) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = x, .gain = gain, .silu = silu};
    if (dst.type == WAN_BF16)
        pixel_norm_rounded(&o);
    else
        wan_team_run(o.d->team, wan_elements(x) / x.dim[3], wan_cpu_grain(x.dim[3]),
                     pixel_norm_piece, &o);
}

static void run_rows(operands *o, tensor t, team_piece f) {
    wan_team_run(o->d->team, t.dim[0] * t.dim[1], wan_cpu_grain(t.dim[2] * t.dim[3]), f, o);
}

/* Channel o of the result is channel (o * cells + phase) / repeats: counted on, not divided. */
static void dup_pixel(float *to, int64_t out, const float *from, int64_t cells, int64_t phase,
                      int64_t repeats) {
    int64_t whole = cells / repeats, part = cells % repeats;
    int64_t at = phase / repeats, rest = phase % repeats;
    for (int64_t o = 0; o < out; o++) {
        to[o] = from[at];
        at += whole;
        rest += part;
        if (rest >= repeats) {
            rest -= repeats;
            at++;
        }
    }
}

static void dup_up_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t out = o->dst.dim[3], in = o->x.dim[3], cells = (int64_t)o->ft * o->fs * o->fs;
    (void)worker;
    for (int64_t row = first; row < end; row++) {
        int64_t n = row / o->dst.dim[1] + o->drop, y = row % o->dst.dim[1];
        int64_t phase = ((n % o->ft) * o->fs + y % o->fs) * o->fs;
        const float *line =
            (const float *)o->x.data + (n / o->ft * o->x.dim[1] + y / o->fs) * o->x.dim[2] * in;
        float *to = (float *)o->dst.data + row * o->dst.dim[2] * out;
        for (int64_t col = 0; col < o->dst.dim[2]; col++)
            dup_pixel(to + col * out, out, line + col / o->fs * in, cells, phase + col % o->fs,
                      out * cells / in);
    }
}

void wan_cpu_dup_up(compute *c, tensor dst, tensor x, int ft, int fs, int drop) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = x, .ft = ft, .fs = fs, .drop = drop};
    run_rows(&o, dst, dup_up_piece);
}

enum { CELLS = 8 }; /* of a block, at most */

/* The pixels of the block that becomes pixel (t, y, col); NULL for frames before the first. */
static void find_cells(const operands *o, int64_t t, int64_t y, int64_t col,
                       const float *cell[CELLS]) {
    const tensor *x = &o->x;
    int64_t fs = o->fs, area = fs * fs;
    for (int64_t i = 0; i < o->ft * area; i++) {
        int64_t frame = t * o->ft + i / area - o->pad;
        int64_t line = y * fs + i / fs % fs, column = col * fs + i % fs;
        int64_t at = ((frame * x->dim[1] + line) * x->dim[2] + column) * x->dim[3];
        cell[i] = frame < 0 ? NULL : (const float *)x->data + at;
    }
}

static void avg_down_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t out = o->dst.dim[3], in = o->x.dim[3], cells = (int64_t)o->ft * o->fs * o->fs;
    int64_t group = in * cells / out;
    const float *cell[CELLS];
    (void)worker;
    assert(cells <= CELLS);
    for (int64_t pixel = first * o->dst.dim[2]; pixel < end * o->dst.dim[2]; pixel++) {
        int64_t row = pixel / o->dst.dim[2], n = 0;
        float *to = (float *)o->dst.data + pixel * out, sum = 0;
        find_cells(o, row / o->dst.dim[1], row % o->dst.dim[1], pixel % o->dst.dim[2], cell);
        for (int64_t c = 0; c < in; c++)
            for (int64_t i = 0; i < cells; i++) {
                sum += cell[i] ? cell[i][c] : 0;
                if (++n == group) {
                    *to++ = sum / (float)group;
                    sum = 0;
                    n = 0;
                }
            }
    }
}

void wan_cpu_avg_down(compute *c, tensor dst, tensor x, int ft, int fs, int pad) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = x, .ft = ft, .fs = fs, .pad = pad};
    run_rows(&o, dst, avg_down_piece);
}

static void copy_piece(void *arg, int64_t from, int64_t to, int worker) {
    const operands *o = arg; /* bytes */
    (void)worker;
    memcpy((char *)o->dst.data + from, (const char *)o->x.data + from, (size_t)(to - from));
}

void wan_cpu_copy(compute *c, tensor dst, tensor src) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = src};
    uintptr_t to = (uintptr_t)dst.data, from = (uintptr_t)src.data;
    size_t bytes = wan_bytes(src);
    if (to + bytes <= from || from + bytes <= to)
        wan_team_run(o.d->team, (int64_t)bytes, 1 << 18, copy_piece, &o);
    else
        memmove(dst.data, src.data, bytes);
}

/* Value i of the pixel that holds p x p image pixels: where it lies among planes [3, T, H, W]
 * (vae.md 2.2). */
static int64_t plane_at(const operands *o, tensor pixels, int64_t frame, int64_t y, int64_t x,
                        int64_t i) {
    int64_t p = o->p, plane = i / (p * p), dx = i / p % p, dy = i % p;
    return ((plane * pixels.dim[1] + frame) * pixels.dim[2] + y * p + dy) * pixels.dim[3] + x * p +
           dx;
}

static void pixels_in_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t channels = o->dst.dim[3];
    (void)worker;
    for (int64_t row = first; row < end; row++)
        for (int64_t x = 0; x < o->dst.dim[2]; x++)
            for (int64_t i = 0; i < channels; i++)
                ((float *)o->dst.data)[(row * o->dst.dim[2] + x) * channels + i] =
                    ((const float *)o->x.data)[plane_at(o, o->x, o->from + row / o->dst.dim[1],
                                                        row % o->dst.dim[1], x, i)];
}

void wan_cpu_pixels_in(compute *c, tensor dst, tensor pixels, int64_t from, int p) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = pixels, .from = from, .p = p};
    run_rows(&o, dst, pixels_in_piece);
}

static void pixels_out_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg;
    int64_t channels = o->x.dim[3];
    (void)worker;
    for (int64_t row = first; row < end; row++)
        for (int64_t x = 0; x < o->x.dim[2]; x++)
            for (int64_t i = 0; i < channels; i++) {
                float v = ((const float *)o->x.data)[(row * o->x.dim[2] + x) * channels + i];
                /* written so that NaN passes through and shows */
                ((float *)o->dst.data)[plane_at(o, o->dst, o->from + row / o->x.dim[1],
                                                row % o->x.dim[1], x, i)] = v < -1  ? -1
                                                                            : v > 1 ? 1
                                                                                    : v;
            }
}

void wan_cpu_pixels_out(compute *c, tensor pixels, int64_t from, tensor x, int p) {
    operands o = {.d = wan_cpu_device(c), .dst = pixels, .x = x, .from = from, .p = p};
    run_rows(&o, x, pixels_out_piece);
}

static void pixels_u8_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg; /* single pixels */
    int64_t plane = o->x.dim[1] * o->x.dim[2] * o->x.dim[3];
    uint8_t *rgb = o->dst.data;
    (void)worker;
    for (int64_t i = first; i < end; i++)
        for (int64_t c = 0; c < 3; c++) {
            float v = ((const float *)o->x.data)[c * plane + i] * 0.5f + 0.5f;
            v = v < 0 ? 0 : v > 1 ? 1 : v; /* a NaN stays one */
            rgb[3 * i + c] = v == v ? (uint8_t)(v * 255.0f) : 0;
        }
}

void wan_cpu_pixels_u8(compute *c, tensor dst, tensor pixels) {
    operands o = {.d = wan_cpu_device(c), .dst = dst, .x = pixels};
    wan_team_run(o.d->team, wan_elements(pixels) / 3, wan_cpu_grain(3), pixels_u8_piece, &o);
}

static void latents_in_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg; /* single pixels */
    int64_t channels = o->x.dim[0], size = o->x.dim[2] * o->x.dim[3];
    (void)worker;
    for (int64_t i = first; i < end; i++)
        for (int64_t k = 0; k < channels; k++)
            ((float *)o->dst.data)[i * channels + k] =
                ((const float *)o->x.data)[(k * o->x.dim[1] + o->from) * size + i] / o->inv_std[k] +
                o->mean[k];
}

void wan_cpu_latents_in(compute *c, tensor dst, tensor latents, int64_t from, tensor mean,
                        tensor inv_std) {
    operands o = {.d = wan_cpu_device(c),
                  .dst = dst,
                  .x = latents,
                  .from = from,
                  .mean = mean.data,
                  .inv_std = inv_std.data};
    wan_team_run(o.d->team, dst.dim[0] * dst.dim[1] * dst.dim[2], wan_cpu_grain(dst.dim[3]),
                 latents_in_piece, &o);
}

static void latents_out_piece(void *arg, int64_t first, int64_t end, int worker) {
    const operands *o = arg; /* single pixels */
    int64_t channels = o->dst.dim[0], size = o->dst.dim[2] * o->dst.dim[3];
    (void)worker;
    for (int64_t i = first; i < end; i++)
        for (int64_t k = 0; k < channels; k++)
            ((float *)o->dst.data)[(k * o->dst.dim[1] + o->from) * size + i] =
                (((const float *)o->x.data)[i * o->x.dim[3] + k] - o->mean[k]) * o->inv_std[k];
}

void wan_cpu_latents_out(compute *c, tensor latents, int64_t from, tensor x, tensor mean,
                         tensor inv_std) {
    operands o = {.d = wan_cpu_device(c),
                  .dst = latents,
                  .x = x,
                  .from = from,
                  .mean = mean.data,
                  .inv_std = inv_std.data};
    wan_team_run(o.d->team, x.dim[0] * x.dim[1] * x.dim[2], wan_cpu_grain(x.dim[3]),
                 latents_out_piece, &o);
}
