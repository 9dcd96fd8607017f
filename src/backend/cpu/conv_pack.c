/* SPDX-License-Identifier: Apache-2.0 */
/* Weights [out, in, kt, kh, kw] of any float type, into panels of nr output channels side by side.
 * A panel holds the taps one after another, rows and columns of the kernel inside; within a tap the
 * channels, cut into segments where there are many (then segments, not taps, are outermost). */
#include "backend/cpu/conv_job.h"

#include <string.h>

static_assert(2 * sizeof(float) * CONV_CHUNK * CONV_TAPS * CPU_NR_MAX <= CONV_OWN, "pack space");

/* to += lines, `stride` apart, of the stored taps that one virtual tap sums. */
static void sum_taps(const conv_job *j, float *to, const float *lines, int64_t stride, int64_t kw,
                     int y, int x) {
    int nr = j->d->k.nr;
    for (int a = 0; a < j->down.count[y]; a++)
        for (int b = 0; b < j->across.count[x]; b++) {
            const float *line =
                lines + ((j->down.from[y] + a) * kw + j->across.from[x] + b) * stride;
            if (a + b == 0)
                memcpy(to, line, (size_t)nr * sizeof *to);
            else
                for (int i = 0; i < nr; i++)
                    to[i] += line[i];
        }
}

/* Where channel c (from the span's first) of a tap lies in the panel, in lines of nr. */
static int64_t line_of(const conv_job *j, const conv_span *s, int64_t tap, int64_t c) {
    if (s->runs)
        return tap * conv_depth(j, s->count) + c;
    int64_t part = c / s->segment * s->segment, size = s->count - part;
    size = conv_depth(j, size < s->segment ? size : s->segment);
    return part * conv_taps(j) + tap * size + c - part;
}

/* Two lines of nr become pairs. */
static void pair_lines(const cpu_kernels *k, uint16_t *to, const float *two) {
    uint16_t half[2 * CPU_NR_MAX];
    k->to_bf16(half, two, 2 * k->nr);
    for (int i = 0; i < k->nr; i++) {
        to[2 * i] = half[i];
        to[2 * i + 1] = half[k->nr + i];
    }
}

/* Channels [from, from + count) of an output channel, all taps: in the order that they lie in. */
static void unpack_kernel(const conv_job *j, float *row, int64_t out, int64_t from, int64_t count,
                          int64_t kernel) {
    const tensor *w = &j->w->weight;
    int64_t size = wan_dtype(w->type)->bytes;
    const char *first = (const char *)w->data + out * j->in * kernel * size;
    if (!j->w->channels_last)
        wan_cpu_unpack(&j->d->k, w->type, row, first + from * kernel * size, count * kernel);
    for (int64_t t = 0; j->w->channels_last && t < kernel; t++)
        wan_cpu_unpack(&j->d->k, w->type, row + t * count, first + (t * j->in + from) * size,
                       count);
}

/* What lies where among the unpacked weights of a chunk, in lines of nr. */
typedef struct chunk {
    const float *lines;
    int64_t count, channel, tap, frame, kw; /* from one to the next */
} chunk;

/* Channel c of the chunk, and in bf16 the next one or zeros with it, of one virtual tap. */
static void pack_tap(const conv_job *j, const chunk *u, char *to, int64_t c, int t, int y, int x) {
    int nr = j->d->k.nr;
    const float *from = u->lines + (c * u->channel + t * u->frame) * nr;
    float two[2 * CPU_NR_MAX];
    if (!j->bf16) {
        sum_taps(j, (float *)(void *)to, from, u->tap * nr, u->kw, y, x);
        return;
    }
    sum_taps(j, two, from, u->tap * nr, u->kw, y, x);
    if (c + 1 < u->count)
        sum_taps(j, two + nr, from + u->channel * nr, u->tap * nr, u->kw, y, x);
    else
        memset(two + nr, 0, (size_t)nr * sizeof *two);
    pair_lines(&j->d->k, (uint16_t *)(void *)to, two);
}

void wan_cpu_conv_pack(const conv_job *j, const conv_span *s, char *panel, int64_t from,
                       int64_t count, int64_t out, int cols, void *own) {
    const tensor *w = &j->w->weight;
    int64_t kh = w->dim[w->rank - 2], kw = w->dim[w->rank - 1], kernel = j->kt * kh * kw;
    int64_t n = count * kernel, nr = j->d->k.nr;
    assert(count <= CONV_CHUNK && kernel <= CONV_TAPS && from % 2 == 0);
    float *rows = own, *lines = rows + (int64_t)CONV_CHUNK * CONV_TAPS * CPU_NR_MAX;
    bool last = j->w->channels_last;
    chunk u = {lines, count, last ? 1 : kernel, last ? count : 1, kh * kw * (last ? count : 1), kw};
    if (cols < nr)
        memset(lines, 0, (size_t)(n * nr) * sizeof *lines);
    for (int i = 0; i < cols; i++)
        unpack_kernel(j, rows + i * n, out + i, s->c0 + from, count, kernel);
    j->d->k.transpose(lines, nr, rows, n, cols, n);
    for (int64_t c = 0; c < count; c += j->bf16 ? 2 : 1) {
        int64_t tap = 0;
        for (int t = j->first; t < j->kt; t++)
            for (int y = 0; y < j->down.taps; y++)
                for (int x = 0; x < j->across.taps; x++, tap++)
                    pack_tap(j, &u, panel + line_of(j, s, tap, from + c) * nr * conv_size(j), c, t,
                             y, x);
    }
}
