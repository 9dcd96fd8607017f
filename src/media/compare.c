/* SPDX-License-Identifier: Apache-2.0 */
#include "media/compare.h"

#include <math.h>
#include <stdlib.h>

#include "media/pair.h"

#define CHUNK 4 /* frames of a latent frame, but for the first */

static wan_status no_memory(const pair *p, error *err) {
    return wan_fail(err, WAN_E_MEMORY, "no memory to compare %s with %s", p->name_a, p->name_b);
}

/* ------------------------------------------------------------------------------------------------
 * measures */

static wan_status measure(pair *p, comparison *c, error *err) {
    size_t room = 0;
    for (;;) {
        bool more;
        wan_status status = wan_pair_next(p, (int64_t)c->frames, &more, err);
        if (status != WAN_OK || !more)
            return status;
        if (c->frames == room) {
            room = room ? 2 * room : 64;
            quality *frame = realloc(c->frame, room * sizeof *frame);
            if (!frame)
                return no_memory(p, err);
            c->frame = frame;
        }
        status =
            wan_quality_frame(p->rgb_a, p->rgb_b, p->width, p->height, &c->frame[c->frames], err);
        if (status != WAN_OK)
            return status;
        c->frames++;
    }
}

static int rising(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double middle(double *v, size_t n) {
    qsort(v, n, sizeof *v, rising);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* The median PSNR is that of the median squared error: infinities have no mean. */
static wan_status find_median(comparison *c, error *err) {
    double *v = malloc(c->chunks * sizeof *v);
    if (!v)
        return wan_fail(err, WAN_E_MEMORY, "no memory to compare %zu chunks", c->chunks);
    for (size_t i = 0; i < c->chunks; i++)
        v[i] = c->chunk[i].mse;
    c->median.mse = middle(v, c->chunks);
    for (size_t i = 0; i < c->chunks; i++)
        v[i] = c->chunk[i].mae;
    c->median.mae = middle(v, c->chunks);
    for (size_t i = 0; i < c->chunks; i++)
        v[i] = c->chunk[i].ssim;
    c->median.ssim = middle(v, c->chunks);
    for (size_t i = 0; i < c->chunks; i++)
        v[i] = c->chunk[i].most;
    c->median.most = (int)middle(v, c->chunks);
    free(v);
    return WAN_OK;
}

static void find_worst(comparison *c) {
    for (size_t i = 0; i < c->frames; i++)
        if (c->frame[i].mse > c->frame[c->worst_frame].mse)
            c->worst_frame = i;
    c->worst = c->chunk[0];
    for (size_t i = 0; i < c->chunks; i++) {
        const quality *q = &c->chunk[i];
        if (q->mse > c->chunk[c->worst_chunk].mse)
            c->worst_chunk = i;
        c->worst.mse = fmax(c->worst.mse, q->mse);
        c->worst.mae = fmax(c->worst.mae, q->mae);
        c->worst.ssim = fmin(c->worst.ssim, q->ssim);
        c->worst.most = q->most > c->worst.most ? q->most : c->worst.most;
    }
}

size_t wan_chunk_first(const comparison *c, size_t chunk) {
    size_t first = chunk ? 1 + CHUNK * (chunk - 1) : 0;
    return first < c->frames ? first : c->frames;
}

static wan_status summarise(comparison *c, error *err) {
    c->chunks = 1 + (c->frames - 1 + CHUNK - 1) / CHUNK;
    c->chunk = malloc(c->chunks * sizeof *c->chunk);
    if (!c->chunk)
        return wan_fail(err, WAN_E_MEMORY, "no memory to compare %zu chunks", c->chunks);
    for (size_t i = 0; i < c->chunks; i++) {
        size_t from = wan_chunk_first(c, i), to = wan_chunk_first(c, i + 1);
        c->chunk[i] = wan_quality_mean(c->frame + from, to - from);
    }
    c->all = wan_quality_mean(c->frame, c->frames);
    find_worst(c);
    return find_median(c, err);
}

wan_status wan_compare(const char *a, const char *b, compare_stop stop, comparison *c, error *err) {
    pair p;
    *c = (comparison){0};
    wan_status status = wan_pair_open(&p, a, b, stop, err);
    if (status == WAN_OK)
        status = measure(&p, c, err);
    if (status == WAN_OK) {
        c->width = p.width;
        c->height = p.height;
        c->lossless = wan_frames_info(p.a).lossless && wan_frames_info(p.b).lossless;
        status = summarise(c, err);
    }
    wan_pair_close(&p);
    if (status != WAN_OK)
        wan_comparison_close(c);
    return status;
}

void wan_comparison_close(comparison *c) {
    free(c->frame);
    free(c->chunk);
    *c = (comparison){0};
}
