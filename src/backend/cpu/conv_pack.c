/* SPDX-License-Identifier: Apache-2.0 */
/* Weights [out, in, kt, kh, kw] of any float type, into panels of nr output channels side by side.
 * A panel holds the taps one after another, rows and columns of the kernel inside; within a tap the
 * channels, cut into segments where there are many (then segments, not taps, are outermost). */
#include "backend/cpu/conv_job.h"

#include <string.h>

enum { ROW = CONV_CHUNK * CONV_TAPS };

static_assert(sizeof(float) * ROW * (CPU_NR_MAX + 2) <= CONV_OWN, "pack space");
static_assert(CONV_SEGMENT % CONV_CHUNK == 0, "what is packed together lies together");

/* Where channel c (from the span's first) of a tap lies in the panel, in lines of nr. */
static int64_t line_of(const conv_job *j, const conv_span *s, int64_t tap, int64_t c) {
    if (s->runs)
        return tap * conv_depth(j, s->count) + c;
    int64_t part = c / s->segment * s->segment, size = s->count - part;
    size = conv_depth(j, size < s->segment ? size : s->segment);
    return part * conv_taps(j) + tap * size + c - part;
}

/* Channels [from, from + count) of an output channel, all stored taps: [tap, channel]. */
static void unpack_kernel(const conv_job *j, float *row, int64_t out, int64_t from, int64_t count,
                          int64_t kernel, float *own) {
    const cpu_kernels *k = &j->d->k;
    const tensor *w = &j->w->weight;
    int64_t size = wan_dtype(w->type)->bytes;
    const char *first = (const char *)w->data + out * j->in * kernel * size;
    for (int64_t t = 0; j->w->channels_last && t < kernel; t++)
        wan_cpu_unpack(k, w->type, row + t * count, first + (t * j->in + from) * size, count);
    if (j->w->channels_last)
        return;
    wan_cpu_unpack(k, w->type, own, first + from * kernel * size, count * kernel);
    k->transpose(row, count, own, kernel, count, kernel);
}

/* Taps that each sum some of the stored ones, of one frame. */
static void sum_taps(const conv_job *j, float *row, const float *stored, int64_t count,
                     int64_t kw) {
    for (int y = 0; y < j->down.taps; y++)
        for (int x = 0; x < j->across.taps; x++, row += count)
            for (int a = 0; a < j->down.count[y]; a++)
                for (int b = 0; b < j->across.count[x]; b++) {
                    int64_t tap = (j->down.from[y] + a) * kw + j->across.from[x] + b;
                    for (int64_t c = 0; c < count; c++)
                        row[c] = a + b ? row[c] + stored[tap * count + c] : stored[tap * count + c];
                }
}

void wan_cpu_conv_pack(const conv_job *j, const conv_span *s, char *panel, int64_t from,
                       int64_t count, int64_t out, int cols, void *own) {
    const cpu_kernels *k = &j->d->k;
    const tensor *w = &j->w->weight;
    int64_t kh = w->dim[w->rank - 2], kw = w->dim[w->rank - 1], kernel = j->kt * kh * kw;
    float *rows = own, *stored = rows + ROW * CPU_NR_MAX, *more = stored + ROW;
    bool plain = j->down.taps * j->across.taps == kh * kw;
    assert(count <= CONV_CHUNK && kernel <= CONV_TAPS && from % 2 == 0 && (plain || j->kt == 1));
    for (int i = 0; i < cols; i++) {
        unpack_kernel(j, plain ? rows + i * ROW : stored, out + i, s->c0 + from, count, kernel,
                      more);
        if (!plain)
            sum_taps(j, rows + i * ROW, stored, count, kw);
    }
    rows += plain ? j->first * kh * kw * count : 0;
    for (int64_t tap = 0; tap < conv_taps(j); tap++, rows += count) {
        char *to = panel + line_of(j, s, tap, from) * k->nr * conv_size(j);
        if (j->bf16) {
            k->pack_bf16((uint16_t *)(void *)to, rows, ROW, cols, count);
            continue;
        }
        if (cols < k->nr)
            memset(to, 0, (size_t)(count * k->nr) * sizeof(float));
        k->transpose((float *)(void *)to, k->nr, rows, ROW, cols, count);
    }
}
